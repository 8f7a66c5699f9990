"""Bias correction takes back exactly the shift of the mean that rounding gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.grid import round_weight
from boardwright.compiler.engine.observe import CalibrationRecord, observe
from boardwright.compiler.engine.recover import correct_bias, mean_shift
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme

SCHEME = PROFILES["arm"]


def convolution(groups: int, bias: bool) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 6 // groups, 3, 3)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w")]
    inputs = ["x", "w"]
    if bias:
        constants.append(numpy_helper.from_array(rng.normal(size=6).astype(np.float32), "b"))
        inputs.append("b")
    graph = helper.make_graph(
        [helper.make_node("Conv", inputs, ["y"], name="conv", group=groups)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 6, 6])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def with_rounded_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = next(tensor for tensor in changed.graph.initializer if tensor.name == "w")
    rounded = round_weight(numpy_helper.to_array(tensor), SCHEME).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(rounded, "w"))
    return changed


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_rounded_weights_with_corrected_biases_keep_each_channels_mean(groups, bias):
    model = convolution(groups, bias)
    # Each channel is constant, so that the mean of an input channel is all that its kernel sees.
    levels = np.random.default_rng(1).uniform(0, 4, size=(5, 1, 6, 1, 1)).astype(np.float32)
    feeds = [{"x": np.broadcast_to(level, (1, 6, 8, 8)).copy()} for level in levels]
    record = observe(model, feeds)
    corrected, count = correct_bias(model, record, SCHEME, set())
    assert count == 1

    def mean(graph: onnx.ModelProto) -> np.ndarray:
        session = open_session(graph)
        return np.mean([session.run(None, feed)[0].mean(axis=(0, 2, 3)) for feed in feeds], axis=0)

    wanted = mean(model)
    before = np.abs(mean(with_rounded_weights(model)) - wanted).max()
    after = np.abs(mean(with_rounded_weights(corrected)) - wanted).max()
    assert before > 0.01
    assert after < 1e-4


def test_channel_means_are_gathered_at_every_opset():
    sample = np.random.default_rng(0).random((1, 6, 8, 8), dtype=np.float32)
    for version in (13, 17, 18, 21):
        model = convolution(1, True)
        model.opset_import[0].version = version
        found = observe(model, [{"x": sample}]).means["x"]
        np.testing.assert_allclose(found, sample.mean(axis=(0, 2, 3)), rtol=1e-5)


def test_gemm_shifts_follow_its_layout():
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    means = np.array([1.0, 2.0, 3.0])
    expected = (round_weight(weight, SCHEME) - weight) @ means
    straight = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    np.testing.assert_allclose(mean_shift(straight, weight, means, SCHEME), expected)
    turned = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    np.testing.assert_allclose(mean_shift(turned, weight.T, means, SCHEME), expected)
    scaled = helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, transB=1)
    assert mean_shift(scaled, weight, means, SCHEME) is None


def test_what_stays_in_floating_point_or_is_asymmetric_is_left_alone():
    model = convolution(1, True)
    record = CalibrationRecord("min-max", 1, {}, {"x": (1.0,) * 6})
    assert correct_bias(model, record, SCHEME, {"conv"})[1] == 0
    asymmetric = QuantizationScheme(weight_type="uint8", weight_symmetric=False)
    assert correct_bias(model, record, asymmetric, set())[1] == 0
    assert correct_bias(model, CalibrationRecord("min-max", 1, {}), SCHEME, set())[1] == 0
