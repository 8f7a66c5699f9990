"""From cheap to dear: what is tried, what is left out and why, and what is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from boardwright.selection import (
    Attempt,
    Candidate,
    Constraints,
    Failure,
    Figures,
    Verdict,
    conclude,
    judge,
    search,
)

BASELINE = Candidate("baseline", 10, is_baseline=True)
INT8 = Candidate("int8", 20, no_more_accurate_than=("baseline",))
MIXED = Candidate("mixed", 30, no_lighter_than=("int8",))
TRAINED = Candidate("trained", 40, no_lighter_than=("int8",))
PRUNED = Candidate("pruned", 50, no_more_accurate_than=("trained",))
LADDER = (PRUNED, MIXED, BASELINE, TRAINED, INT8)

FIGURES = {
    "baseline": (0.84, 8.0, 10e6),
    "int8": (0.82, 4.0, 2.7e6),
    "mixed": (0.835, 5.0, 3.5e6),
    "trained": (0.838, 4.0, 2.7e6),
    "pruned": (0.81, 2.0, 1.5e6),
}


def figures(name: str, **changed: Any) -> Figures:
    accuracy, latency, size = FIGURES[name]
    values: dict[str, Any] = {
        "metric": "top1",
        "accuracy": accuracy,
        "baseline_accuracy": 0.84,
        "latencies_ms": {1: {"p50_ms": 0.9 * latency, "p95_ms": latency}},
        "size_bytes": size,
        "memory_bytes": 10 * size,
    }
    return Figures(**(values | changed))


class Bench:
    """Answers attempts from FIGURES and remembers what was tried."""

    def __init__(self, failures: Mapping[str, Failure] | None = None, **changed: Any) -> None:
        self.tried: list[str] = []
        self._failures = failures or {}
        self._changed = changed

    def __call__(self, candidate: Candidate) -> Attempt:
        self.tried.append(candidate.name)
        if candidate.name in self._failures:
            return Attempt(candidate, failure=self._failures[candidate.name])
        return Attempt(candidate, {"board": figures(candidate.name, **self._changed)})


def run(bench: Bench, *asked: str, **options: Any) -> Any:
    return search(LADDER, ["board"], [Constraints.parse(text) for text in asked], bench, **options)


def test_the_cheapest_that_satisfies_ends_the_search():
    bench = Bench()
    found = run(bench, "max-drop=3,max-latency-ms=5")
    assert bench.tried == ["baseline", "int8"]
    (outcome,) = found.outcomes
    assert outcome.choice == "int8" and found.satisfied
    assert outcome.reason == "loses 2.00 points of top-1 (84.00 → 82.00 %); p95 (1 thread) on board 4.000 ms"
    reasons = {held.candidate: (held.verdict, held.reason) for held in outcome.judgements}
    assert reasons["baseline"] == (Verdict.MISSES, "p95 (1 thread) on board 8.000 ms, over 5 ms")
    assert reasons["mixed"] == (Verdict.NOT_TRIED, "not needed: int8 is cheaper to make and settles it")


def test_the_baseline_wins_when_it_is_fast_enough_and_else_only_as_the_last_resort():
    bench = Bench()
    assert run(bench, "max-drop=1,max-latency-ms=20").outcomes[0].choice == "baseline"
    assert bench.tried == ["baseline"]
    bench = Bench()
    assert run(bench, "max-drop=1").outcomes[0].choice == "mixed"
    assert bench.tried == ["baseline", "int8", "mixed"]
    outcome = run(Bench(), "max-drop=0").outcomes[0]
    assert outcome.choice == "baseline"
    assert outcome.reason.startswith("nothing smaller or faster keeps to max-drop=0: keeps top-1")


def test_several_sets_are_settled_in_one_search():
    bench = Bench()
    found = run(
        bench, "max-drop=3,max-latency-ms=5", "max-drop=1,max-latency-ms=6", "max-drop=4,max-size-mb=2"
    )
    assert [outcome.choice for outcome in found.outcomes] == ["int8", "mixed", "pruned"]
    assert bench.tried == ["baseline", "int8", "mixed", "pruned"]


def test_what_cannot_help_is_left_out_and_says_why():
    bench = Bench()
    found = run(bench, "max-drop=1,max-latency-ms=3")
    assert bench.tried == ["baseline", "int8", "pruned"]
    told = {held.candidate: held.reason for held in found.outcomes[0].judgements}
    assert told["mixed"] == "cannot be faster than int8, whose p95 on board is 4 ms, over 3 ms"
    assert not found.satisfied
    assert found.outcomes[0].reason.startswith(
        "no candidate satisfies; int8 comes nearest: loses 2.00 points"
    )
    bench = Bench()
    told = {
        held.candidate: held.reason
        for held in run(bench, "max-drop=0.1,max-size-mb=9").outcomes[0].judgements
    }
    assert bench.tried == ["baseline", "int8", "mixed", "trained"]
    assert told["pruned"] == "cannot be more accurate than trained, which loses 0.20 points, more than 0.1"


def test_what_cannot_be_smaller_is_left_out_too():
    bench = Bench()
    found = run(bench, "max-drop=4,max-size-mb=2")
    assert bench.tried == ["baseline", "int8", "pruned"] and found.outcomes[0].choice == "pruned"
    told = {held.candidate: held.reason for held in found.outcomes[0].judgements}
    assert told["trained"] == "cannot be smaller than int8, whose size is 2.7 MB, over 2 MB"


def test_a_latency_near_the_bound_rules_nothing_out():
    bench = Bench()
    run(bench, "max-drop=1,max-latency-ms=3.7")
    assert bench.tried == ["baseline", "int8", "mixed", "trained", "pruned"]


def test_exhaustive_tries_everything_and_takes_the_fastest_then_the_most_accurate():
    bench = Bench()
    found = run(bench, "max-drop=3,max-latency-ms=20", exhaustive=True)
    assert bench.tried == ["baseline", "int8", "mixed", "trained", "pruned"]
    assert found.outcomes[0].choice == "pruned"
    found = run(Bench(), "max-drop=2.5,max-latency-ms=20", exhaustive=True)
    assert found.outcomes[0].choice == "trained"
    told = {held.candidate: held for held in found.outcomes[0].judgements}
    assert told["int8"].verdict is Verdict.SATISFIES
    assert told["int8"].reason.endswith("trained is the better one")
    assert found.outcomes[0].front == ("baseline", "trained", "pruned")


def test_a_failure_is_told_and_the_search_goes_on():
    lost = Failure("quantize-int8", "INFORMATION_LOST", "All scores are 0.", known=True)
    bench = Bench({"int8": lost})
    found = run(bench, "max-drop=3,max-latency-ms=6")
    assert bench.tried == ["baseline", "int8", "mixed"]
    (failed,) = [held for held in found.outcomes[0].judgements if held.candidate == "int8"]
    assert failed.verdict is Verdict.FAILED
    assert failed.reason == (
        "quantize-int8 failed: All scores are 0. [INFORMATION_LOST] (remembered; --retry tries it again)"
    )


def test_a_board_that_nobody_can_measure_stays_undecided_and_costs_no_more_attempts():
    why = {"latency": "no measurement for that board: it needs an agent"}
    bench = Bench(latencies_ms={}, missing=why)
    found = run(bench, "max-drop=3,max-latency-ms=5")
    assert bench.tried == ["baseline", "int8"]
    (outcome,) = found.outcomes
    assert (outcome.choice, outcome.undecided) == ("", "int8")
    assert outcome.reason == (
        "int8 keeps to all that is known, but p95 (1 thread) on board is not known: "
        "no measurement for that board: it needs an agent"
    )
    bench = Bench(latencies_ms={}, missing=why)
    assert run(bench, "max-drop=1,max-latency-ms=5").outcomes[0].undecided == "mixed"


def test_a_failure_on_one_board_does_not_hide_the_other():
    def attempt(candidate: Candidate) -> Attempt:
        wrong = Failure("build", "PROFILE_MISMATCH", "quantized for other kernels")
        return Attempt(candidate, {"here": figures(candidate.name), "there": wrong})

    found = search([BASELINE, INT8], ["here", "there"], [Constraints(max_drop_points=3)], attempt)
    assert [outcome.choice for outcome in found.outcomes] == ["int8", ""]
    assert "quantized for other kernels" in found.outcomes[1].reason
    assert found.attempt("int8").figures("there") is None
    with pytest.raises(KeyError):
        found.attempt("dynamic")


def test_what_is_impossible_is_never_tried():
    missing = Candidate("trained", 40, not_possible="needs a training dataset (--training)")
    bench = Bench()
    found = search([BASELINE, missing], ["board"], [Constraints(0.5, 1.0)], bench)
    assert bench.tried == ["baseline"]
    assert found.outcomes[0].judgements[1].reason == "needs a training dataset (--training)"


def test_without_labels_the_drop_is_unknown_and_not_zero():
    attempt = Attempt(INT8, {"board": figures("int8", accuracy=None, missing={"accuracy": "no labels"})})
    judged = judge(attempt, "board", Constraints(max_drop_points=1))
    assert (judged.verdict, judged.reason) == (Verdict.UNKNOWN, "the accuracy is not known: no labels")


def test_a_drop_of_exactly_the_bound_is_allowed():
    attempt = Attempt(INT8, {"board": figures("int8", accuracy=0.83, baseline_accuracy=0.84)})
    assert judge(attempt, "board", Constraints(max_drop_points=1.0)).verdict is Verdict.SATISFIES


def test_nothing_tried_is_no_choice():
    outcome = conclude([], "board", Constraints(max_drop_points=1))
    assert (outcome.choice, outcome.reason, outcome.front) == ("", "there is no candidate", ())
