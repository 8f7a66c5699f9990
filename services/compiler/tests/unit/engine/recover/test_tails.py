"""What a sampled histogram does not show is not cut off for nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.observe import ChannelStatistics, TensorStatistics, observe
from boardwright.compiler.engine.observe.histogram import FloatHistogram
from boardwright.compiler.engine.recover.ranges import choose_ranges
from boardwright.compiler.engine.recover.tails import distribution, value_counts
from boardwright.compiler.engine.scheme import PROFILES


def sampled(high=(7.0, 6.0, 1.0), channels=True):
    values = np.abs(np.random.default_rng(0).normal(0, 0.8, 4000)).clip(max=3.5).astype(np.float32)
    known = ChannelStatistics(1, (0.0,) * len(high), high) if channels else None
    return TensorStatistics(0.0, max(high), FloatHistogram.from_values(values), "measured", (), known)


def test_the_extremes_of_every_channel_weigh_as_single_values():
    values, weights = distribution("x", sampled(), {"x": 400_000})
    assert np.all(np.diff(values) >= 0)
    assert values.max() == 7.0
    assert weights[values == 7.0] == pytest.approx(0.01)
    assert weights[values == 6.0] == pytest.approx(0.01)
    assert weights.sum() == pytest.approx(4000 + 6 * 0.01)


def test_a_histogram_of_every_value_needs_nothing():
    found = sampled()
    values, weights = distribution("x", found, {"x": 4000})
    expected, counts = found.histogram.ordered()
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(weights, counts)


def test_without_channels_the_tensors_own_extremes_are_taken():
    values, weights = distribution("x", sampled(channels=False), {})
    assert values.max() == 7.0
    assert weights[values == 7.0] == 1.0


def test_the_values_of_all_samples_are_counted(images, network):
    prepared = prepare_graph(network("SiLU"))
    record = observe(prepared, images)
    counts = value_counts(prepared, record)
    shape = [axis.dim_value for axis in prepared.graph.input[0].type.tensor_type.shape.dim]
    assert counts[prepared.graph.input[0].name] == record.samples * np.prod(shape)


def test_what_was_not_sampled_is_not_cut_off(images, network):
    """A channel reaches twice as far as any value that the sample holds."""
    prepared = prepare_graph(network("SiLU"))
    record = observe(prepared, images)
    name = next(name for name, found in record.statistics.items() if found.source == "measured")
    found = sampled()
    ranges = {**record.ranges, name: replace(record.ranges[name], low=0.0, high=7.0)}
    hidden = replace(record, ranges=ranges, statistics={**record.statistics, name: found})
    chosen, _ = choose_ranges(prepared, hidden, PROFILES["x86-vnni"], set())
    assert chosen.ranges[name].high > 5
