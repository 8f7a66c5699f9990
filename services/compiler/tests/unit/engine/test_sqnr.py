"""The two measures by which passes say how far values are from the exact ones."""

import numpy as np
import pytest

from boardwright.compiler.engine.pruning.sensitivity import output_error
from boardwright.compiler.engine.sqnr import (
    MOST_DB,
    SqnrMeter,
    channel_variances,
    decibels,
    noise_ratio,
    noise_to_signal,
    relative_errors,
)


def test_decibels_are_bounded_and_turn_back():
    assert decibels(0.01) == pytest.approx(20) and decibels(2.0, 200.0) == pytest.approx(20)
    assert noise_to_signal(decibels(0.003)) == pytest.approx(0.003)
    assert decibels(0.0) == decibels(0.0, 0.0) == decibels(1e-30) == MOST_DB
    for lost in ((1e-9, 0.0), (np.nan, 1.0), (np.inf, 1.0), (1e30, 1.0)):
        assert decibels(*lost) == -MOST_DB


def test_sqnr_is_told_per_tensor_over_all_samples():
    a, b = np.array([[3.0, 4.0]], np.float32), np.array([[30.0, 40.0]], np.float32)
    whole = np.array([1])
    meter = SqnrMeter()
    meter.add({"a": a * 1.1, "n": whole, "cut": a[:, :1]}, {"a": a, "n": whole, "cut": a, "gone": a})
    assert meter.sqnr_db() == {"a": pytest.approx(20.0, abs=1e-4)}
    meter.add({"a": b}, {"a": b})
    assert meter.sqnr_db()["a"] == pytest.approx(10 * np.log10(101 / 0.01), abs=1e-4)


def test_masks_are_no_error_and_a_nan_is_the_worst():
    mask = np.array([[-np.inf, 1.0]], np.float32)
    meter = SqnrMeter()
    meter.add({"mask": mask, "finite": np.float32([[-6e4, 1.1]])}, {"mask": mask, "finite": mask})
    assert meter.sqnr_db() == {"mask": MOST_DB, "finite": pytest.approx(20, abs=1e-4)} and meter.is_finite
    meter.add({"mask": np.float32([[-np.inf, np.nan]])}, {"mask": mask})
    assert meter.sqnr_db()["mask"] == -MOST_DB and not meter.is_finite


def test_channels_count_alike_whatever_their_size():
    rng = np.random.default_rng(0)
    boxes, scores = 600 * rng.random((1, 4, 50)), rng.random((1, 2, 50))
    wanted = np.concatenate([boxes, scores], axis=1)
    blind = np.concatenate([boxes, 0 * scores], axis=1)
    assert noise_ratio([blind], [wanted]) == pytest.approx(2 / 6)
    assert noise_ratio([wanted], [wanted]) == 0
    assert noise_ratio([wanted[:, :3]], [wanted]) == 1
    assert noise_ratio([np.full_like(wanted, np.nan)], [wanted]) == 1
    assert noise_ratio([], []) == 0


def test_relative_errors_are_of_channels_and_not_bounded():
    exact = np.stack([np.arange(8.0), np.full(8, 2.0), np.arange(8.0)]).reshape(1, 3, 2, 4)
    ours = exact.copy()
    ours[0, 0] += 2 * np.sqrt(exact[0, 0].var())
    ours[0, 1, 0, 0] += 1e-9
    errors = relative_errors(ours, exact)
    assert errors.dtype == np.float64 and errors[0] == pytest.approx(4)
    assert np.isinf(errors[1]) and errors[2] == 0


def test_masked_outputs_are_compared_where_they_are_numbers():
    """A mask in the answers made every channel count as lost, whatever was rounded."""
    exact = np.float32([[1.0, 2.0, 3.0, -np.inf], [5.0, 4.0, 3.0, -np.inf]])
    assert channel_variances(exact) == pytest.approx(exact[:, :3].var())
    assert noise_ratio([exact], [exact]) == 0
    ours = np.where(np.isinf(exact), -6e4, exact + 0.1)
    assert relative_errors(ours, exact) == pytest.approx(0.1**2 * 6 / 8 / exact[:, :3].var(), rel=1e-5)
    ours[0, 0] = np.nan
    assert noise_ratio([ours], [exact]) == 1
    nothing = np.zeros((0, 6), np.float32)
    assert channel_variances(nothing) == relative_errors(nothing, nothing) == 0


def test_a_pruned_feature_map_is_judged_by_its_channels():
    """A channel that is gone counts as one of two, though the map's sides are shorter than its channels."""
    exact = np.random.default_rng(0).normal(size=(1, 8, 3, 5)).astype(np.float32)
    ours = exact.copy()
    ours[:, :4] = exact[:, :4].mean(axis=(0, 2, 3), keepdims=True)
    assert output_error([[exact]], [[ours]]) == pytest.approx(np.sqrt(0.5))
    assert output_error([[exact], [exact]], [[exact], [exact]]) == 0
    assert output_error([[exact]], [[ours[:, :4]]]) == 1000
