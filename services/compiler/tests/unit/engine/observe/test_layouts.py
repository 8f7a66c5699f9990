"""Channels in blocks, whatever the CPU's block size: 16 with AVX-512, 8 with AVX2, 4 on Arm, or none."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from boardwright.compiler.engine.observe import observe, setup
from boardwright.compiler.engine.observe.optimised import (
    BLOCKED_DOMAIN,
    OptimisedGraph,
    Place,
    _block_of,
    block_size,
    leave_as_is,
)
from boardwright.compiler.engine.observe.views import blocked_view, sampled_view

BLOCKS = [4, 8, 16]


@pytest.fixture
def feeds():
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(1, 3, 20, 20)).astype(np.float32)} for _ in range(2)]


def check(record, model, feeds, truth):
    """Compare the tensors that were read, not derived, with the values themselves."""
    values = [truth(model, feed) for feed in feeds]
    read = {name: found for name, found in record.statistics.items() if found.source == "measured"}
    assert set(record.statistics) == set(values[0]) and len(read) >= 8
    for name, found in read.items():
        taken = np.concatenate([entry[name] for entry in values])
        assert (found.low, found.high) == pytest.approx((taken.min(), taken.max()), abs=1e-5), name
        if found.channels is not None:
            others = tuple(axis for axis in range(taken.ndim) if axis != found.channels.axis)
            np.testing.assert_allclose(found.channels.low, taken.min(axis=others), atol=1e-5)
            np.testing.assert_allclose(found.channels.high, taken.max(axis=others), atol=1e-5)
        if name in record.means:
            others = tuple(axis for axis in range(taken.ndim) if axis != 1)
            np.testing.assert_allclose(record.means[name], taken.mean(axis=others), atol=1e-4)
        if record.sampling == "exact":
            assert found.histogram.total == taken.size, name


def in_blocks(array: np.ndarray, block: int) -> np.ndarray:
    """Return (N, C, ...) as it lies in memory in blocks of channels, the last one filled with zeros."""
    batch, channels, *space = array.shape
    filled = np.zeros((batch, -(-channels // block) * block, int(np.prod(space))), array.dtype)
    filled[:, :channels] = array.reshape(batch, channels, -1)
    parted = filled.reshape(batch, -1, block, filled.shape[-1])
    return parted.transpose(0, 1, 3, 2).reshape(-1)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shape", [(1, 16, 3, 5), (2, 5, 4, 4), (3, 33, 2, 2), (1, 48, 7, 1)])
def test_views_tell_channels_and_values_from_filling(block, shape):
    array = np.random.default_rng(0).normal(5, 1, size=shape).astype(np.float32)  # no zeros among them
    view = blocked_view(shape, block)
    memory = in_blocks(array, block).reshape(view.outer, view.positions, view.lanes)
    assert memory.size == view.size
    low, high = (reduce(memory, axis=1).reshape(-1) for reduce in (np.min, np.max))
    np.testing.assert_array_equal(view.per_channel(low), array.reshape(*shape[:2], -1).min(axis=2))
    found = view.channel_statistics(low, high)
    assert found.axis == 1 and len(found.low) == shape[1]
    np.testing.assert_array_equal(found.high, array.max(axis=(0, 2, 3)))
    np.testing.assert_array_equal(np.sort(view.values(memory).reshape(-1)), np.sort(array.reshape(-1)))
    assert view.filled is (shape[1] % block != 0)
    sampled, taken = sampled_view(view, 8)
    assert sampled == view and 2 <= taken <= view.positions


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_is_found_from_how_numbers_lie(block):
    numbers = np.arange(128, dtype=np.float32).reshape(64, 2)
    assert _block_of(numbers, in_blocks(numbers[None], block)) == block


def test_a_layout_that_is_not_understood_is_no_block():
    numbers = np.arange(128, dtype=np.float32).reshape(64, 2)
    rng = np.random.default_rng(0)
    for memory in (numbers.reshape(-1), rng.permutation(numbers.reshape(-1)), in_blocks(numbers[None], 32)):
        assert _block_of(numbers, memory) == 1
    halved = in_blocks(numbers[None], 16).reshape(4, 2, 2, 8).transpose(0, 2, 1, 3)
    assert _block_of(numbers, halved.reshape(-1)) == 8  # the same memory as blocks of 8
    assert _block_of(numbers, np.zeros(64, np.float32)) == 1


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("sampling", ["sampled", "exact"])
def test_tensors_in_blocks_of_any_size_are_read_as_they_are(
    network, feeds, truth, monkeypatch, block, sampling
):
    """Standard operators lay every tensor out as the kernels of another CPU would."""
    model = network(17)
    shapes = {name: value.shape for name, value in truth(model, feeds[0]).items()}

    def lay_out(fused, wanted):
        graph = leave_as_is(fused, wanted)
        laid = [name for name in wanted if len(shapes[name]) == 4 and name in graph.places]
        for name in laid:
            _add_blocks(graph.model.graph, name, shapes[name], block)
        places = {name: Place(f"{name}_blocked", blocked=True) for name in laid}
        assert places
        return OptimisedGraph(graph.model, {**graph.places, **places}, block)

    add_probes = setup.add_probes

    def probes(graph, wanted):
        made = add_probes(graph, wanted)
        _without_this_cpus_kernels(made.model.graph, shapes, block)
        return made

    monkeypatch.setattr(setup, "lay_out", lay_out)
    monkeypatch.setattr(setup, "add_probes", probes)
    record = observe(model, feeds, sampling=sampling, threads=1)
    check(record, model, feeds, truth)
    assert len(record.statistics["c5"].channels.low) == 5  # a block that is filled with zeros


def _add_blocks(graph, name, shape, block):
    batch, channels, height, width = shape
    filled = -(-channels // block) * block
    constants = {
        "pads": [0, 0, 0, 0, 0, filled - channels, 0, 0],
        "parted": [batch, filled // block, block, height, width],
        "whole": [batch, filled, height, width],
    }
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"{name}_{key}"))
    graph.node.extend(
        [
            helper.make_node("Pad", [name, f"{name}_pads"], [f"{name}_filled"]),
            helper.make_node("Reshape", [f"{name}_filled", f"{name}_parted"], [f"{name}_in_parts"]),
            helper.make_node("Transpose", [f"{name}_in_parts"], [f"{name}_turned"], perm=[0, 1, 3, 4, 2]),
            helper.make_node("Reshape", [f"{name}_turned", f"{name}_whole"], [f"{name}_blocked"]),
        ]
    )


def _without_this_cpus_kernels(graph, shapes, block):
    """Average by standard operators: the runtime pools in this CPU's blocks alone."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.domain != BLOCKED_DOMAIN:
            graph.node.append(node)
            continue
        assert node.op_type == "GlobalAveragePool"
        view = blocked_view(shapes[node.input[0].removesuffix("_blocked")], block)
        parted, axes = f"{node.output[0]}_parted", f"{node.output[0]}_axes"
        sizes = np.array([view.outer, view.positions, view.lanes], np.int64)
        graph.initializer.append(numpy_helper.from_array(sizes, parted))
        graph.node.append(helper.make_node("Reshape", [node.input[0], parted], [axes]))
        graph.node.append(helper.make_node("ReduceMean", [axes], list(node.output), axes=[1], keepdims=0))


def test_an_unknown_layout_falls_back_to_the_runtimes_own_order(network, feeds, truth, monkeypatch):
    from boardwright.compiler.engine.observe import optimised

    model = network(17)
    usual = observe(model, feeds, threads=1)
    monkeypatch.setattr(optimised, "block_size", lambda: 1)
    record = observe(model, feeds, threads=1)
    check(record, model, feeds, truth)
    for name, found in record.statistics.items():
        assert found.low == pytest.approx(usual.statistics[name].low, abs=1e-5), name
        assert (found.channels is None) == (usual.statistics[name].channels is None)


def test_this_cpus_own_block_is_known():
    assert block_size() in (1, *BLOCKS)
