"""Learned rounding: weights on the grid, an output error below that of the nearest grid points."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from boardwright.compiler.engine.graph.layers import LayerForm
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.grid import round_weight, weight_steps
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.recover.layer_statistics import Moments, Reader, _places, _rows
from boardwright.compiler.engine.recover.rounding import RoundingOptions, _learn, learn_rounding
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme

SCHEME = PROFILES["x86-vnni"]


def correlated(count, size, seed):
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(9).normal(size=(3, size))
    return rng.normal(size=(count, 3)) @ mixed + 0.05 * rng.normal(size=(count, size))


def moments(seed):
    found = Moments.empty(1, 16)
    rows = correlated(400, 16, seed)[None]
    found.add(rows, rows)
    return found


def test_correlated_inputs_let_errors_cancel():
    coarse = QuantizationScheme(reduce_range=True)
    weight = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    reader = Reader("fc", "x", "xq", LayerForm("Gemm", False), (6, 16))
    found, rows = _learn(reader, weight, moments(1), moments(2), coarse, RoundingOptions())
    assert found.applied and found.turned > 0
    assert found.learned < 0.6 * found.nearest
    levels = rows / weight_steps(weight, coarse)
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-6)
    assert np.abs(rows - weight).max() <= weight_steps(weight, coarse).max() * 1.001
    np.testing.assert_allclose(
        round_weight(rows, coarse), rows, atol=1e-9
    )  # the quantizer finds the same grid


def test_a_choice_that_does_not_hold_on_other_samples_is_not_applied():
    weight = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    reader = Reader("fc", "x", "xq", LayerForm("Gemm", False), (6, 16))
    other = Moments.empty(1, 16)
    rows = np.random.default_rng(3).normal(size=(1, 400, 16)) * np.geomspace(10, 0.01, 16)[::-1]
    other.add(rows, rows)
    found, rounded = _learn(reader, weight, moments(1), other, SCHEME, RoundingOptions())
    assert not found.applied
    np.testing.assert_allclose(rounded, round_weight(weight, SCHEME))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_rows_are_what_a_convolution_multiplies(groups):
    import torch

    rng = np.random.default_rng(0)
    value = rng.normal(size=(2, 4, 9, 7)).astype(np.float32)
    weight = rng.normal(size=(8, 4 // groups, 3, 2)).astype(np.float32)
    form = LayerForm("Conv", False, groups, (2, 1), (1, 2), (1, 0, 1, 0))
    reader = Reader("conv", "x", "xq", form, weight.shape)
    places = _places(value.shape, reader, rng)
    rows = _rows(value, reader, places)
    made = np.einsum("gpk,gok->gop", rows, weight.reshape(groups, -1, rows.shape[2]).astype(np.float64))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(value),
        torch.from_numpy(weight),
        stride=(2, 1),
        padding=(1, 0),
        dilation=(1, 2),
        groups=groups,
    ).numpy()
    taken = expected[places[:, 0], :, places[:, 1], places[:, 2]].T
    np.testing.assert_allclose(made.reshape(8, -1), taken, atol=1e-4)


def test_a_graphs_layers_end_on_their_grid(images, network):
    prepared = prepare_graph(network("Relu"))
    record = observe(prepared, images)
    options = RoundingOptions(updates=40)
    model, told = learn_rounding(
        prepared, prepared, record, SCHEME, {"gemm"}, images[:16], images[16:], options
    )
    assert [found.layer for found in told] == ["conv1", "conv2", "conv3"]
    again, _ = learn_rounding(prepared, prepared, record, SCHEME, {"gemm"}, images[:16], images[16:], options)
    assert model.SerializeToString() == again.SerializeToString()
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for found, name in zip(told, ["w1", "w2", "w3"], strict=True):
        if found.applied:
            np.testing.assert_allclose(stored[name], round_weight(stored[name], SCHEME), rtol=1e-5, atol=1e-7)
