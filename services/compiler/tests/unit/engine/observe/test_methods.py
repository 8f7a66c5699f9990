"""Methods choose what they are meant to, and survive tensors that hardly vary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boardwright.compiler.engine.observe import METHODS, CalibrationRecord, TensorRange, TensorStatistics
from boardwright.compiler.engine.observe.histogram import FloatHistogram
from boardwright.compiler.engine.observe.methods import choose_range
from boardwright.compiler.engine.observe.record import ChannelStatistics
from boardwright.compiler.engine.scheme import PROFILES

RNG = np.random.default_rng(3)


def statistics(values):
    values = np.asarray(values, np.float32)
    return TensorStatistics(float(values.min()), float(values.max()), FloatHistogram.from_values(values))


def rounding_error(values, low, high):
    """The mean squared error of 8-bit rounding and clipping to a range that holds zero."""
    step = (high - low) / 255
    below = np.rint(-low / step)
    levels = np.clip(np.rint(values / step), -below, 255 - below)
    return float(np.mean((levels * step - values) ** 2))


def test_histograms_merge_to_what_one_would_have_counted():
    values = RNG.normal(size=3000).astype(np.float32)
    values[:10] = 0
    values[10] = -0.0
    parts = [FloatHistogram.from_values(part) for part in np.split(values, 3)]
    whole = FloatHistogram.from_values(values)
    assert parts[0].merge(parts[1]).merge(parts[2]) == whole
    assert whole.total == 3000
    assert whole.merge(FloatHistogram.empty()) == whole
    assert FloatHistogram.from_json(whole.to_json()) == whole
    middle, counts = whole.ordered()
    assert (np.diff(middle) > 0).all()
    assert counts[middle == 0] == 11
    nearest = middle[np.abs(values[:, None] - middle).argmin(axis=1)]
    assert (np.abs(nearest - values) <= np.abs(values) / 255).all()


def test_percentiles_are_those_of_the_values():
    values = RNG.normal(size=100_000)
    found = choose_range(statistics(values), "percentile", percentile=99.0)
    assert found.low == pytest.approx(np.quantile(values, 0.005), rel=0.02)
    assert found.high == pytest.approx(np.quantile(values, 0.995), rel=0.02)
    whole = choose_range(statistics(values), "percentile", percentile=100)
    assert (whole.low, whole.high) == (statistics(values).low, statistics(values).high)


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=50_000),
        RNG.laplace(size=50_000),
        np.maximum(RNG.laplace(size=50_000), 0),
        RNG.normal(size=50_000) ** 3,
        RNG.uniform(-0.2, 6, size=50_000),
    ],
    ids=["gaussian", "laplace", "relu", "heavy-tailed", "uniform"],
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_is_near_the_best_of_an_exhaustive_search(values, symmetric):
    found = choose_range(statistics(values), "mse", symmetric=symmetric)
    if symmetric:
        found = TensorRange(-found.magnitude, found.magnitude)
    scales = np.linspace(0.02, 1, 100)
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    if symmetric:
        bound = np.abs(values).max()
        best = min(rounding_error(values, -bound * part, bound * part) for part in scales)
    else:
        best = min(
            rounding_error(values, low * below, high * above) for below in scales[4::8] for above in scales
        )
    assert rounding_error(values, found.low, found.high) <= 1.06 * best


def test_entropy_cuts_a_long_tail_and_keeps_a_compact_one():
    tailed = np.concatenate([RNG.normal(size=100_000), [60.0]])
    found = choose_range(statistics(tailed), "entropy")
    assert 2.5 < found.high < 20
    assert found.low >= -20
    compact = RNG.uniform(0, 4, size=100_000)
    assert choose_range(statistics(compact), "entropy").high > 3.8


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        np.zeros(100),
        np.full(100, 7.25),
        np.full(100, -3.0),
        1 + 1e-7 * RNG.random(100),
        [0.0] * 999 + [1e-30],
        [-1e30, 1e30],
        RNG.uniform(5, 6, size=100),
        RNG.uniform(-6, -5, size=100),
        [2.0],
    ],
    ids=["zero", "constant", "negative", "nearly", "tiny", "huge", "above", "below", "one"],
)
def test_no_tensor_is_too_plain(values, method, symmetric):
    found = choose_range(statistics(values), method, symmetric=symmetric)
    seen = statistics(values)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low <= found.high
    assert seen.low <= found.low
    assert found.high <= seen.high


def test_a_tensor_without_values_keeps_its_range():
    empty = TensorStatistics(0.0, 0.0, FloatHistogram.empty())
    for method in METHODS:
        assert choose_range(empty, method) == TensorRange(0, 0)


def test_one_record_serves_all_methods_and_schemes():
    values = np.append(RNG.laplace(size=20_000), 60.0)
    seen = {"x": statistics(values)}
    record = CalibrationRecord("min-max", 1, {"x": TensorRange(values.min(), values.max())}, {}, seen)
    chosen = {method: record.with_method(method) for method in METHODS}
    assert {found.method for found in chosen.values()} == set(METHODS)
    assert len({found.ranges["x"] for found in chosen.values()}) == len(METHODS)
    assert all(found.statistics == record.statistics for found in chosen.values())
    symmetric = record.ranges_for("mse", PROFILES["tensorrt"])["x"]
    assert symmetric.magnitude < record.ranges["x"].magnitude
    low = record.ranges_for("percentile", percentile=90.0)["x"]
    assert low.high < chosen["percentile"].ranges["x"].high


def test_mse_weighs_the_extremes_that_a_sample_does_not_show():
    """A hundred values of 40 among a million small ones, of which a thousand were counted."""
    counted = statistics(RNG.normal(size=1000))
    channels = ChannelStatistics(1, (-4.0,) * 100, (40.0,) * 100)
    sampled = replace(counted, low=-4.0, high=40.0, channels=channels, values=1_000_000)
    without = choose_range(replace(sampled, values=1000), "mse")
    assert without.high < 5
    found = choose_range(sampled, "mse")
    assert 5 < found.high <= 40
    every = np.concatenate([RNG.normal(size=1_000_000), np.full(100, 40.0)])
    assert rounding_error(every, found.low, found.high) < 0.3 * rounding_error(
        every, without.low, without.high
    )
    assert choose_range(sampled, "percentile") == choose_range(replace(sampled, values=0), "percentile")
