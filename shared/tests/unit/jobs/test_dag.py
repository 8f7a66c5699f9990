"""The DAG's rules, over declared steps and states alone."""

import pytest

from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.dag import (
    InvalidDag,
    JobState,
    OutputOf,
    StepSpec,
    StepState,
    job_state,
    newly_ready,
    order,
    resolve_inputs,
    to_skip,
)

_CHECKPOINT = Blob("sha256:" + "c" * 64, 10)
_GRAPH = Blob("sha256:" + "d" * 64, 20)


def _spec(step: str, *needs: str) -> StepSpec:
    inputs: dict[str, Blob | OutputOf] = {needed: OutputOf(needed, "graph") for needed in needs}
    return StepSpec(step, f"sample/{step}", "1", inputs=inputs or {"checkpoint": _CHECKPOINT})


# import -> quantize -> evaluate-int8; import -> evaluate
STEPS = [
    _spec("evaluate-int8", "quantize"),
    _spec("evaluate", "import"),
    _spec("quantize", "import"),
    _spec("import"),
]
_WAITING = {spec.step: StepState.WAITING for spec in STEPS}


def test_order_puts_each_step_after_those_it_needs() -> None:
    assert [spec.step for spec in order(STEPS)] == ["import", "evaluate", "quantize", "evaluate-int8"]


@pytest.mark.parametrize(
    ("steps", "reason", "told"),
    [
        ([], "NO_STEPS", "at least one"),
        ([_spec("a"), _spec("a")], "STEP_ID_REPEATED", "'a'"),
        ([_spec("Bad Name")], "STEP_ID_INVALID", "Bad Name"),
        ([_spec("import"), _spec("quantize", "imprt")], "STEP_UNKNOWN", "did you mean 'import'?"),
        ([_spec("a", "b"), _spec("b", "a"), _spec("c")], "STEP_CYCLE", "a, b"),
        ([_spec("a", "a")], "STEP_CYCLE", "a"),
        ([_spec(f"s{i}") for i in range(1001)], "TOO_MANY_STEPS", "1001"),
    ],
)
def test_what_is_no_dag_is_refused(steps: list[StepSpec], reason: str, told: str) -> None:
    with pytest.raises(InvalidDag) as caught:
        order(steps)
    assert caught.value.reason == reason and told in caught.value.message


def test_steps_become_ready_when_their_needs_have_succeeded() -> None:
    assert [spec.step for spec in newly_ready(STEPS, _WAITING)] == ["import"]
    imported = {**_WAITING, "import": StepState.SUCCEEDED}
    assert {spec.step for spec in newly_ready(STEPS, imported)} == {"quantize", "evaluate"}


def test_a_failed_step_skips_what_depends_on_it_and_nothing_else() -> None:
    states = {**_WAITING, "import": StepState.SUCCEEDED, "quantize": StepState.FAILED}
    assert to_skip(STEPS, states) == ["evaluate-int8"]
    assert to_skip(STEPS, {**_WAITING, "import": StepState.CANCELLED}) == [
        "evaluate",
        "quantize",
        "evaluate-int8",
    ]


def test_inputs_resolve_to_what_the_needed_steps_made() -> None:
    (quantize,) = (spec for spec in STEPS if spec.step == "quantize")
    assert resolve_inputs(quantize, {"import": {"graph": _GRAPH}}) == {"import": _GRAPH}
    with pytest.raises(InvalidDag, match="which made: labels"):
        resolve_inputs(quantize, {"import": {"labels": _GRAPH}})


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("ready waiting", JobState.QUEUED),
        ("running waiting", JobState.RUNNING),
        ("succeeded ready", JobState.RUNNING),
        ("failed running", JobState.RUNNING),
        ("succeeded succeeded", JobState.FINISHING),
        ("succeeded failed", JobState.FAILED),
        ("failed skipped", JobState.FAILED),
        ("succeeded cancelled", JobState.CANCELLED),
    ],
)
def test_a_job_stands_as_its_steps_do(states: str, expected: JobState) -> None:
    assert job_state(dict(enumerate(map(StepState, states.split())))) is expected  # type: ignore[arg-type]
