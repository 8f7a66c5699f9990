import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boardwright.registry.domain import stages
from boardwright.registry.domain.resources import AccuracyDrop, Gate, LatencyCeiling, ModelKey, Stage

KEY = ModelKey("default", "digits")


def test_a_sound_ladder_has_no_fault():
    gates = [Gate("b", AccuracyDrop("top1", 0)), Gate("b", LatencyCeiling("x", "p95", 33, 1))]
    assert stages.ladder_fault(["a", "b"], gates) == ""


@pytest.mark.parametrize(
    ("ladder", "gates", "words"),
    [
        ([], [], "at least one"),
        (["a", "a"], [], "twice"),
        (["a"], [Gate("b", AccuracyDrop("top1", 1))], "not on the ladder"),
        (["a"], [Gate("a", AccuracyDrop("speed", 1))], "speed"),
        (["a"], [Gate("a", AccuracyDrop("top1", -1))], "0 or more"),
        (["a"], [Gate("a", AccuracyDrop("top1", math.nan))], "0 or more"),
        (["a"], [Gate("a", LatencyCeiling("", "p95", 1, 0))], "board"),
        (["a"], [Gate("a", LatencyCeiling("x", "max", 1, 0))], "max"),
        (["a"], [Gate("a", LatencyCeiling("x", "p95", 0, 0))], "above 0"),
        (["a"], [Gate("a", LatencyCeiling("x", "p95", math.inf, 0))], "above 0"),
        (["a"], [Gate("a", LatencyCeiling("x", "p95", 1, -1))], "threads"),
    ],
)
def test_a_fault_is_named(ladder, gates, words):
    assert words in stages.ladder_fault(ladder, gates)


@given(st.lists(st.one_of(st.integers(1, 9), st.none()), max_size=40))
def test_a_stage_is_a_stack(moves):
    """Numbers promote that release, None rolls back; a plain list is the model of what must happen."""
    stage = Stage(KEY, "production", 0, 3, 0, 1, 0)
    history, model = {}, []
    for number, release in enumerate(moves, start=1):
        if release is not None:
            move = stages.promote(
                stage,
                release,
                number,
                reason="r",
                verdicts=(),
                actor="ann",
                now_us=number,
                standing=history.get(stage.promotion),
            )
            if model[-1:] != [release]:
                model.append(release)
        else:
            top = history.get(stage.promotion)
            base = history.get(top.base) if top else None
            if base is None:
                assert len(model) <= 1
                continue
            move = stages.roll_back(stage, base, number, reason="r", actor="ann", now_us=number)
            model.pop()
        assert move.promotion.previous_release == stage.release
        assert move.stage.revision == stage.revision + 1
        stage = move.stage
        history[number] = move.promotion
        assert stage.release == (model[-1] if model else 0)
