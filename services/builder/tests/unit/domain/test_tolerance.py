"""The tolerance follows from the model, catches wrong models, and says why."""

import numpy as np
import pytest

from boardwright.builder.domain.tolerance import choose_tolerance
from boardwright.model.golden import GoldenSamples


def _logits(samples: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 5, (samples, 100)).astype(np.float32)


def _verdict(expected: np.ndarray, actual: np.ndarray, tolerance) -> bool:  # type: ignore[no-untyped-def]
    golden = GoldenSamples(
        {"x": np.zeros((len(expected), 1), np.float32)},
        {"y": expected},
        tolerance.absolute,
        tolerance.relative,
        tolerance.outliers,
    )
    return golden.compare([{"y": actual[i : i + 1]} for i in range(len(actual))]).passed


def test_a_float_graph_gets_float_rounding_and_no_outliers() -> None:
    expected = _logits()
    tolerance = choose_tolerance([expected], [[expected]], integer_graph=False)
    assert tolerance.outliers == 0
    assert 1e-5 <= tolerance.absolute <= 1e-3
    assert "float32 rounding" in tolerance.explanation
    assert _verdict(expected, expected * (1 + 1e-6), tolerance)
    assert not _verdict(expected, expected + 0.01, tolerance)


def test_an_integer_graph_gets_a_few_times_what_other_kernels_differ_by() -> None:
    random = np.random.default_rng(5)
    expected = _logits()
    other = expected + random.normal(0, 0.05, expected.shape).astype(np.float32)
    tolerance = choose_tolerance([expected], [[other]], integer_graph=True)
    assert "runtime's other kernels differ" in tolerance.explanation
    third = expected + random.normal(0, 0.05, expected.shape).astype(np.float32)
    assert _verdict(expected, third, tolerance)
    assert not _verdict(expected, np.roll(expected, 1, axis=1), tolerance)
    assert tolerance.warnings == ()


def test_an_output_on_a_grid_may_miss_by_two_steps() -> None:
    grid = np.round(_logits() / 0.25) * np.float32(0.25)
    tolerance = choose_tolerance([grid], [[grid]], integer_graph=True)
    assert tolerance.absolute == pytest.approx(0.5)
    assert "two steps" in tolerance.explanation


def test_large_boxes_do_not_hide_small_scores() -> None:
    """A detector's one output holds pixels up to 640 and scores up to 1; pixels must not set the scale."""
    random = np.random.default_rng(9)
    expected = np.concatenate(
        [random.uniform(0, 640, (2, 500, 4)), random.uniform(0, 1, (2, 500, 20)) ** 8], axis=2
    ).astype(np.float32)
    noise = np.concatenate([random.normal(0, 2, (2, 500, 4)), random.normal(0, 0.002, (2, 500, 20))], axis=2)
    tolerance = choose_tolerance([expected], [[expected + noise]], integer_graph=True)
    assert tolerance.absolute < 1
    wrong = expected.copy()
    wrong[:, :, :4] += 100
    assert not _verdict(expected, wrong, tolerance)


def test_samples_that_look_alike_are_warned_of() -> None:
    row = _logits(1)
    same = np.concatenate([row, row])
    assert "more varied samples" in choose_tolerance([same], [[same]], integer_graph=False).warnings[0]


def test_a_constant_output_does_not_break_it() -> None:
    zeros = np.zeros((1, 4), np.float32)
    assert choose_tolerance([zeros], [[zeros]], integer_graph=True).absolute > 0
