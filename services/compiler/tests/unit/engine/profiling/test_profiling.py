"""Profiles: costs as counted by hand, kernels that really ran, a trace that viewers can open."""

from __future__ import annotations

import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.profiling import graph_costs, profile_graph, profile_runtime
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES


def test_costs_are_those_counted_by_hand(classifier):
    costs = graph_costs(classifier)
    by_name = {node.name: node for node in costs.nodes}
    assert by_name["conv"].macs == 3 * 16 * 16 * 3 * 3 * 3
    assert by_name["gemm"].macs == 3 * 3
    assert costs.macs == by_name["conv"].macs + 9
    assert by_name["conv"].parameters == 81
    assert costs.parameters == 81 + 9 + 3
    assert costs.weight_bytes == 4 * (81 + 9 + 3)
    image = 4 * 3 * 16 * 16
    assert by_name["conv"].output_bytes == image
    assert costs.peak_activation_bytes == 2 * image  # the convolution's input and output
    assert costs.unknown == ()


def test_depthwise_and_transposed_convolutions_and_products_are_counted():
    value = helper.make_tensor_value_info
    weights = {
        "depthwise": np.zeros((8, 1, 3, 3), np.float32),
        "up": np.zeros((8, 4, 2, 2), np.float32),
        "matrix": np.zeros((16, 5), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "depthwise"], ["a"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"], name="up", strides=[2, 2]),
        helper.make_node("MatMul", ["b", "matrix"], ["y"], name="matrix"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 8, 8, 8])],
        [value("y", TensorProto.FLOAT, [1, 4, 16, 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    macs = {node.name: node.macs for node in graph_costs(model).nodes}
    assert macs == {"depthwise": 8 * 64 * 9, "up": 8 * 64 * 4 * 4, "matrix": 4 * 16 * 5 * 16}


def test_the_kernels_are_those_that_ran_and_the_trace_can_be_opened(classifier, noise):
    found = profile_runtime(classifier, {"input": noise(1, 3, 16, 16)}, runs=3)
    assert {"Conv", "Gemm"} <= {kernel.operator.removeprefix("Fused") for kernel in found.kernels}
    assert (
        sum(kernel.macs for kernel in found.kernels) >= graph_costs(classifier).macs
    )  # padded channels count
    assert all(kernel.milliseconds >= 0 for kernel in found.kernels)
    assert found.run_ms > 0
    assert any(event.get("ph") == "X" for event in json.loads(found.trace))
    assert sorted(found.by_operator().values(), reverse=True) == list(found.by_operator().values())


def test_a_quantized_graph_shows_its_integer_kernels(classifier, noise):
    samples = [{"input": noise(1, 3, 16, 16)} for _ in range(4)]
    done = quantize(classifier, samples, PROFILES["x86-vnni"])
    found = profile_runtime(done.model, samples[0], runs=2)
    assert "QLinearConv" in found.by_operator()
    layer = next(kernel for kernel in found.kernels if kernel.operator == "QLinearConv")
    assert layer.macs == 3 * 16 * 16 * 3 * 3 * 3


def test_both_runtimes_side_by_side(classifier, noise):
    found = profile_graph(classifier, {"input": noise(1, 3, 16, 16)}, runs=2)
    assert "convolution" in " ".join(operator.operator for operator in found.torch)
    described = found.describe()
    json.dumps(described, allow_nan=False)
    assert abs(sum(layer["share"] for layer in described["layers"]) - 1) < 1e-6
    assert len(found.costliest(2)) == 2


def test_a_graph_that_pytorch_has_no_form_of_is_told(classifier, noise):
    samples = [{"input": noise(1, 3, 16, 16)} for _ in range(4)]
    packed = quantize(classifier, samples, PROFILES["x86-vnni"]).model
    found = profile_graph(packed, samples[0], runs=2)
    assert found.torch == () and found.torch_note
