"""What a sampled histogram does not show is not cut off for nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boardwright.compiler.engine.observe import ChannelStatistics, TensorStatistics, observe
from boardwright.compiler.engine.observe.histogram import FloatHistogram
from boardwright.compiler.engine.observe.tails import with_tails
from boardwright.compiler.engine.recover.ranges import choose_ranges
from boardwright.compiler.engine.scheme import PROFILES


def sampled(of=400_000, high=(7.0, 6.0, 1.0), channels=True):
    """4000 values up to 3.5, of as many as ``of`` says."""
    values = np.abs(np.random.default_rng(0).normal(0, 0.8, 4000)).clip(max=3.5).astype(np.float32)
    known = ChannelStatistics(1, (0.0,) * len(high), high) if channels else None
    return TensorStatistics(0.0, max(high), FloatHistogram.from_values(values), channels=known, values=of)


def test_the_extremes_of_every_channel_weigh_as_single_values():
    values, weights = with_tails(sampled())
    assert np.all(np.diff(values) >= 0)
    assert values.max() == 7.0
    assert weights[values == 7.0] == pytest.approx(0.01)
    assert weights[values == 6.0] == pytest.approx(0.01)
    assert weights.sum() == pytest.approx(4000 + 6 * 0.01)


def test_a_histogram_of_every_value_needs_nothing():
    found = sampled(of=4000)
    values, weights = with_tails(found)
    expected, counts = found.histogram.ordered()
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(weights, counts)


def test_without_channels_and_a_count_the_tensors_own_extremes_are_taken():
    values, weights = with_tails(sampled(of=0, channels=False))
    assert values.max() == 7.0
    assert weights[values == 7.0] == 1.0


def test_the_values_of_all_samples_are_counted(network):
    prepared = network(17)
    feeds = [{"x": np.random.default_rng(seed).random((1, 3, 20, 20), np.float32)} for seed in range(3)]
    record = observe(prepared, feeds)
    assert record.statistics["x"].values == 3 * 3 * 20 * 20
    assert record.statistics["join"].values == 3 * 21 * 20 * 20


def test_what_was_not_sampled_is_not_cut_off(network):
    """A channel reaches twice as far as any value that the sample holds."""
    prepared = network(17)
    record = observe(prepared, [{"x": np.random.default_rng(0).random((1, 3, 20, 20), np.float32)}])
    ranges = {**record.ranges, "silu": replace(record.ranges["silu"], low=0.0, high=7.0)}
    hidden = replace(record, ranges=ranges, statistics={**record.statistics, "silu": sampled()})
    chosen, _ = choose_ranges(prepared, hidden, PROFILES["x86-vnni"], set())
    assert chosen.ranges["silu"].high > 5
