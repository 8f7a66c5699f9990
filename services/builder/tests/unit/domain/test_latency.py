"""Summaries, turns and ratios."""

import numpy as np
import pytest

from boardwright.builder.domain.latency import compare, interleaved, summarize


def test_a_summary_is_numpys() -> None:
    times = np.random.default_rng(1).gamma(4, 2, 500)
    summary = summarize(list(times))
    assert summary.runs == 500
    assert summary.mean_ms == pytest.approx(times.mean())
    assert summary.std_ms == pytest.approx(times.std(ddof=1))
    assert (summary.p50_ms, summary.p95_ms, summary.p99_ms) == pytest.approx(
        tuple(np.percentile(times, (50, 95, 99)))
    )
    assert summary.min_ms == times.min()


def test_one_run_has_no_spread_and_none_is_an_error() -> None:
    assert summarize([3.0]).std_ms == 0.0
    with pytest.raises(ValueError, match="no run times"):
        summarize([])


@pytest.mark.parametrize(("subjects", "runs", "block"), [(1, 10, 10), (2, 25, 10), (4, 200, 10), (3, 7, 2)])
def test_turns_give_every_subject_all_its_runs(subjects: int, runs: int, block: int) -> None:
    plan = interleaved(subjects, runs, block)
    for subject in range(subjects):
        assert sum(turn.timed for turn in plan if turn.subject == subject) == runs
    rounds = -(-runs // block)
    assert [sorted(t.subject for t in plan if t.round == r) for r in range(rounds)] == [
        list(range(subjects))
    ] * rounds


def test_another_subject_begins_each_round() -> None:
    plan = interleaved(3, 6, 1)
    assert [turn.subject for turn in plan[::3]] == [0, 1, 2, 0, 1, 2]


def test_a_ratio_survives_a_host_that_slows_down() -> None:
    """Everything takes up to eight times as long halfway through; the ratio stays, plain means lie."""
    random = np.random.default_rng(3)
    slowdown = np.concatenate([np.ones(10), np.linspace(1, 8, 10)])
    baseline = [list(4.0 * s * random.normal(1, 0.02, 10)) for s in slowdown]
    subject = [list(2.0 * s * random.normal(1, 0.02, 10)) for s in slowdown]
    ratio = compare(baseline, subject)
    assert ratio.speedup == pytest.approx(2.0, rel=0.02)
    assert ratio.low <= 2.0 <= ratio.high and ratio.high - ratio.low < 0.1
    assert ratio == compare(baseline, subject)


def test_rounds_must_match() -> None:
    with pytest.raises(ValueError, match="same rounds"):
        compare([[1.0]], [[1.0], [2.0]])
