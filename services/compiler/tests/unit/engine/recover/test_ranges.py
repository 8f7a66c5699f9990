"""Ranges are judged behind the function that reads a tensor."""

from __future__ import annotations

import numpy as np
import pytest

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.observe import TensorRange, observe
from boardwright.compiler.engine.recover.functions import function_behind, saturation
from boardwright.compiler.engine.recover.ranges import choose_ranges, search_range
from boardwright.compiler.engine.scheme import PROFILES


def silu(x):
    return x / (1 + np.exp(-x))


def rounded(values, found):
    step = (found.high - found.low) / 255
    zero = np.rint(-found.low / step)
    return (np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step


def test_what_silu_maps_to_nothing_gets_no_steps():
    values = np.random.default_rng(0).normal(-8, 6, 20_000)
    whole = TensorRange(float(values.min()), float(values.max()))
    found = search_range(values, np.ones(values.size), whole, silu)
    assert found.low > whole.low / 2
    assert found.high > 0.8 * whole.high

    def error(chosen):
        return np.abs(silu(rounded(values, chosen)) - silu(values)).mean()

    assert error(found) < 0.9 * error(whole)


def test_an_outlier_does_not_take_the_steps_of_all_others():
    values = np.append(np.random.default_rng(0).normal(0, 1, 200_000), 400.0)
    whole = TensorRange(float(values.min()), 400.0)
    assert search_range(values, np.ones(values.size), whole, norm=2.0).high < 300
    assert search_range(values, np.ones(values.size), whole, norm=3.0).high == 400


def test_values_that_fill_their_range_keep_it():
    values = np.random.default_rng(0).uniform(0, 6, 50_000)
    assert search_range(values, np.ones(values.size), TensorRange(0.0, 6.0)).high > 5.9


@pytest.mark.parametrize("symmetric", [True, False])
def test_symmetric_ranges_stay_usable(symmetric):
    values = np.random.default_rng(0).normal(0, 1, 10_000)
    found = search_range(values, np.ones(values.size), TensorRange(-4.0, 4.0), symmetric=symmetric)
    assert found.low < 0 < found.high
    assert not symmetric or found.low == -found.high


def test_a_gate_and_its_product_are_one_function(network):
    topology = Topology(network("SiLU").graph)
    function = function_behind(topology, "c1")
    assert function is not None
    np.testing.assert_allclose(function(np.array([-2.0, 3.0])), silu(np.array([-2.0, 3.0])))
    assert function_behind(Topology(network("Relu").graph), "c1") is None
    assert function_behind(topology, "logits") is None


def test_saturation_tells_where_a_function_is_flat():
    def sigmoid(x):
        return 1 / (1 + np.exp(-np.clip(x, -60, 60)))

    low, high = saturation(sigmoid)
    assert -9.5 < low < -9 and 9 < high < 9.5
    low, high = saturation(lambda x: x * sigmoid(x))
    assert low < -9 and high == np.inf


def test_a_record_gets_its_ranges_changed_and_nothing_else(images, network):
    prepared = prepare_graph(network("SiLU"))
    record = observe(prepared, images)
    found, changed = choose_ranges(prepared, record, PROFILES["x86-vnni"], set())
    assert changed > 0
    assert set(found.ranges) == set(record.ranges)
    assert found.means == record.means
    for name, new in found.ranges.items():
        old = record.ranges[name]
        assert min(old.low, 0) <= new.low <= new.high <= max(old.high, 0)
