"""Scales that are powers of two: exact ones, the better of both neighbours, everywhere in a graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.errors import QuantizationFailed
from boardwright.compiler.engine.grid import round_weight
from boardwright.compiler.engine.observe import TensorRange, observe
from boardwright.compiler.engine.power_of_two import (
    best_of,
    least_error_steps,
    next_power_of_two,
    rounded_up,
)
from boardwright.compiler.engine.protect.noise import scale_of
from boardwright.compiler.engine.quantize import insert_quantization, quantize
from boardwright.compiler.engine.recover import RecoverOptions, recover
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme

TIDL = PROFILES["tidl-mma1"]
PER_CHANNEL = replace(TIDL, per_channel=True)


def test_the_next_power_of_two_is_exact_and_not_below():
    powers = 2.0 ** np.arange(-30, 20)
    np.testing.assert_array_equal(next_power_of_two(powers), powers)
    np.testing.assert_array_equal(next_power_of_two(np.nextafter(powers, np.inf)), 2 * powers)
    np.testing.assert_array_equal(next_power_of_two(np.nextafter(powers, 0)), powers)
    assert next_power_of_two(0.0) > 0


@pytest.mark.parametrize("axes", [None, (1, 2, 3)])
def test_weights_take_the_better_of_both_neighbours(axes):
    weight = np.random.default_rng(0).uniform(-1, 1, size=(8, 4, 3, 3))
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    # Half of the channels end just above a grid, where cutting off is better, half in its middle.
    weight = (weight / largest * np.repeat([128, 180], 4).reshape(8, 1, 1, 1)).astype(np.float32)
    steps = least_error_steps(weight, axes, 127)
    upper = next_power_of_two(np.abs(weight).max(axis=axes, keepdims=True) / 127)

    def errors(tried):
        rounded = np.clip(np.rint(weight / tried), -127, 127) * tried
        return np.square(rounded - weight).sum(axis=axes, keepdims=True)

    assert (np.frexp(steps)[0] == 0.5).all()
    np.testing.assert_array_equal(errors(steps), np.minimum(errors(upper), errors(upper / 2)))
    if axes is not None:
        assert {1.0, 0.5} == set((steps / upper).ravel())  # both happen here


def test_what_was_rounded_once_keeps_its_grid():
    weight = np.random.default_rng(1).normal(size=(16, 32)).astype(np.float32)
    for scheme in (TIDL, PER_CHANNEL):
        once = round_weight(weight, scheme)
        np.testing.assert_array_equal(round_weight(once.astype(np.float32), scheme), once)


def test_ranges_are_rounded_up_or_cut_where_that_costs_less():
    assert rounded_up(TensorRange(-0.5, 127.0)) == TensorRange(-127.0, 127.0)
    assert rounded_up(TensorRange(-0.5, 127.1)) == TensorRange(-254.0, 254.0)
    tried = []

    def cost(low, high):
        tried.append(high)
        return abs(high - 127 / 4)

    assert best_of(TensorRange(0, 127.0), cost).high == 127 / 4
    assert tried == [127.0, 127 / 2, 127 / 4, 127 / 8]


def test_the_method_mse_takes_the_best_power_of_two(noise):
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "k"], ["y"], name="conv")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 32, 32])],
        [numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    values = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
    values[0, 0, 0, 0] = 130 / 32  # one value just above the range of the scale 1/32
    record = observe(model, [{"x": values}], sampling="exact")
    assert rounded_up(record.ranges["x"]).high == 127 / 16
    chosen = record.ranges_for("mse", TIDL)["x"]
    assert rounded_up(chosen).high == 127 / 32


@pytest.mark.parametrize("scheme", [TIDL, PER_CHANNEL], ids=["per-tensor", "per-channel"])
@pytest.mark.parametrize("method", ["min-max", "mse"])
def test_every_scale_of_the_graph_is_a_power_of_two(classifier, noise, scheme, method, other_scales):
    samples = [{"input": 3.3 * noise(1, 3, 16, 16)} for _ in range(4)]
    done = quantize(classifier, samples, scheme, method=method)
    assert other_scales(done.model) == []
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in done.model.graph.initializer}
    zeros = {node.input[2] for node in done.model.graph.node if node.op_type.endswith("izeLinear")}
    assert not any(stored[name].any() for name in zeros)
    assert "power-of-two" in done.scheme.label
    before, after = (run(model, samples[0]) for model in (classifier, done.model))
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()


def test_softmax_joins_constants_and_wide_biases_have_powers_of_two_as_well(noise, other_scales):
    """The quantizer sets these scales by itself, whatever ranges it is given."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(6, 8)).astype(np.float32) * 1e-7,
        "b": np.full(8, 3e4, np.float32),  # beyond 32 bits of input scale times weight scale
        "k": np.float32([0.3]),
        "v": rng.normal(size=(8, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], name="wide"),
        helper.make_node("Softmax", ["a"], ["s"], name="softmax"),
        helper.make_node("Add", ["s", "k"], ["t"], name="add"),
        helper.make_node("MatMul", ["t", "v"], ["y"], name="matmul"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    scheme = replace(PER_CHANNEL, operators=("Gemm", "Softmax", "Add", "MatMul"))
    record = observe(model, [{"x": noise(1, 6)} for _ in range(4)])
    quantized = insert_quantization(model, record, scheme, set())
    assert other_scales(quantized) == []
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    names = {node.input[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    assert TensorProto.INT32 in {stored[name].data_type for name in names if name in stored}
    scale = next(n.input[1] for n in quantized.graph.node if n.op_type == "QuantizeLinear" and "s" in n.input)
    assert numpy_helper.to_array(stored[scale]) == 1 / 128
    assert np.isfinite(run(quantized, {"x": noise(1, 6)})).all()


def test_recovered_weights_keep_their_grid_in_the_graph(classifier, noise, other_scales):
    samples = [{"input": noise(1, 3, 16, 16)} for _ in range(9)]
    kernel = next(tensor for tensor in classifier.graph.initializer if tensor.name == "kernel")
    spread = numpy_helper.to_array(kernel) + np.random.default_rng(0).normal(size=(3, 3, 3, 3)) / 3
    kernel.CopyFrom(numpy_helper.from_array(spread.astype(np.float32), "kernel"))
    methods = ("ranges", "bias-correction", "reconstruction", "rounding")
    found = recover(classifier, lambda: samples, TIDL, RecoverOptions(methods=methods, threads=1))
    assert found.error_after <= found.error_before
    done = quantize(classifier, samples, TIDL, record=found.record, recovered=found.file())
    assert other_scales(done.model) == []


def test_simulated_noise_has_the_scale_of_the_graph():
    scale, zero = scale_of(TensorRange(-0.2, 1.1), TIDL)
    assert (float(scale), int(zero)) == (2.0**-6, 0)


@pytest.mark.parametrize("change", [{"activation_symmetric": False}, {"activation_type": "uint8"}])
def test_other_arithmetic_does_not_go_with_it(change):
    with pytest.raises(QuantizationFailed, match="symmetric int8") as caught:
        QuantizationScheme(**{**TIDL.to_json(), **change})
    assert caught.value.reason == "SCHEME_UNKNOWN"


def test_dynamic_quantization_refuses_it(classifier):
    with pytest.raises(QuantizationFailed, match="at run time") as caught:
        quantize_dynamic(classifier, TIDL)
    assert caught.value.reason == "SCHEME_UNFIT"


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    from boardwright.compiler.engine.graph.session import open_session

    return open_session(model, threads=1).run(None, feed)[0]
