import pytest
from hypothesis import given
from hypothesis import strategies as st

from boardwright.registry import names
from boardwright.registry.domain.gates import Evidence, judge
from boardwright.registry.domain.resources import (
    AccuracyDrop,
    Gate,
    LatencyCeiling,
    Measurement,
    ModelKey,
    Pin,
    ReleaseEntry,
)

KEY = ModelKey("default", "digits")
BOARD = "raspberry-pi-5"
DROP = Gate("production", AccuracyDrop("top1", 1.0))
CEILING = Gate("production", LatencyCeiling(BOARD, "p95", 33.0, 0))
INT8 = ReleaseEntry("int8", "a1", Pin(board=BOARD), "sha256:1")


def accuracy(variant, top1, dataset="digits-test/1", artifact="", **figures):
    return Measurement(
        KEY,
        3,
        variant,
        artifact,
        "m1",
        "accuracy",
        {"top1": top1, **figures},
        "emulated",
        "",
        Pin(),
        0,
        dataset,
        "",
        "",
        "",
        0,
    )


def latency(value, *, artifact="a1", board=BOARD, origin="measured", threads=0, field="p95_ms"):
    return Measurement(
        KEY, 3, "int8", artifact, "m2", "latency", {field: value}, origin, board, Pin(board=board), threads,
        "",        "", "", "", 0,
    )  # fmt: skip


def evidence(*measurements, entries=(INT8,)):
    """Measurements newest first."""
    return Evidence(entries, measurements, "digits@3", names.measurement)


def test_a_drop_within_the_bound_passes_and_says_what_decided():
    verdict = judge(DROP, evidence(accuracy("int8", 0.975), accuracy("baseline", 0.98)))
    assert verdict.passed
    assert verdict.measurement == "projects/default/models/digits/versions/3/variants/int8/measurements/m1"
    for word in ("top1", "int8", "0.9750", "0.50 points below", "digits-test/1", "1 points"):
        assert word in verdict.explanation


def test_a_larger_drop_is_refused_with_figure_and_bound():
    verdict = judge(DROP, evidence(accuracy("int8", 0.96), accuracy("baseline", 0.98)))
    assert not verdict.passed
    assert verdict.figure == pytest.approx(2.0)
    assert verdict.bound == 1.0


def test_accuracies_of_other_numbers_of_samples_are_not_compared():
    few, all_of_them = accuracy("int8", 1.0, samples=10), accuracy("baseline", 0.98, samples=500)
    verdict = judge(DROP, evidence(few, all_of_them))
    assert not verdict.passed
    assert "top1 of variant baseline" in verdict.explanation and "on 10 samples of" in verdict.explanation
    assert not judge(DROP, evidence(few, accuracy("int8", 0.9, samples=500), all_of_them)).passed


def test_a_gain_passes_and_is_called_one():
    verdict = judge(DROP, evidence(accuracy("int8", 0.99), accuracy("baseline", 0.98)))
    assert verdict.passed
    assert "1.00 points above" in verdict.explanation


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_drop_of_exactly_the_bound_passes(base, drop):
    """Whatever binary fractions make of it."""
    gate = Gate("s", AccuracyDrop("top1", drop / 10))
    verdict = judge(gate, evidence(accuracy("int8", (base - drop) / 1000), accuracy("baseline", base / 1000)))
    assert verdict.passed


@pytest.mark.parametrize(
    ("measurements", "missing"),
    [
        ([], "variant int8"),
        ([accuracy("baseline", 0.9)], "variant int8"),
        ([accuracy("int8", 0.9)], "variant baseline"),
        ([accuracy("int8", 0.9, "a/1"), accuracy("baseline", 0.9, "a/2")], "variant baseline"),
        ([accuracy("int8", 0.9, ""), accuracy("baseline", 0.9, "")], "variant int8"),
        ([accuracy("int8", 0.9, artifact="a1"), accuracy("baseline", 0.9)], "variant int8"),
    ],
)
def test_a_missing_accuracy_refuses_and_says_how_to_get_it(measurements, missing):
    verdict = judge(DROP, evidence(*measurements))
    assert not verdict.passed
    assert verdict.figure is None
    assert missing in verdict.explanation
    assert "boardwright compile" in verdict.explanation


def test_the_newest_figure_on_a_shared_dataset_decides():
    verdict = judge(DROP, evidence(
        accuracy("int8", 0.5, "new/1"), accuracy("int8", 0.979), accuracy("int8", 0.1),
        accuracy("baseline", 0.98)
    ))  # fmt: skip
    assert verdict.passed
    assert "0.9790" in verdict.explanation


def test_every_variant_of_the_release_must_pass():
    other = ReleaseEntry("int4", "a9", Pin(board="x"), "sha256:2")
    both = (INT8, other)
    good = [accuracy("int8", 0.98), accuracy("baseline", 0.98)]
    assert not judge(DROP, evidence(*good, entries=both)).passed
    worse = judge(DROP, evidence(accuracy("int4", 0.9), *good, entries=both))
    assert not worse.passed
    assert "int4" in worse.explanation


def test_a_latency_within_the_ceiling_passes():
    verdict = judge(CEILING, evidence(latency(33.0)))
    assert verdict.passed
    assert verdict.measurement.endswith("/artifacts/a1/measurements/m2")
    assert f"measured on {BOARD}" in verdict.explanation


def test_a_latency_above_the_ceiling_is_refused():
    verdict = judge(CEILING, evidence(latency(33.1)))
    assert not verdict.passed
    assert (verdict.figure, verdict.bound) == (33.1, 33.0)


@pytest.mark.parametrize(
    "figures",
    [
        [],
        [latency(1, origin="emulated")],
        [latency(1, board="other-board")],
        [latency(1, threads=1)],
        [latency(1, artifact="a2")],
        [latency(1, artifact="")],
        [latency(1, field="p50_ms")],
    ],
)
def test_a_missing_latency_refuses_and_an_emulated_one_is_missing(figures):
    verdict = judge(CEILING, evidence(*figures))
    assert not verdict.passed
    assert verdict.figure is None
    assert "boardwright measure" in verdict.explanation
    assert ("emulated" in verdict.explanation) == bool(figures and figures[0].origin == "emulated")


def test_a_release_without_an_artifact_for_the_board_is_refused():
    entry = ReleaseEntry("int8", "a1", Pin(board="another"), "sha256:1")
    verdict = judge(CEILING, evidence(latency(1), entries=[entry]))
    assert not verdict.passed
    assert f"no artifact for {BOARD}" in verdict.explanation


def test_the_slowest_artifact_of_the_board_decides():
    two = (INT8, ReleaseEntry("int8", "a2", Pin(board=BOARD, runtime="x"), "sha256:2"))
    assert judge(CEILING, evidence(latency(10), latency(20, artifact="a2"), entries=two)).passed
    slow = judge(CEILING, evidence(latency(10), latency(50, artifact="a2"), entries=two))
    assert not slow.passed
    assert "a2" in slow.explanation
