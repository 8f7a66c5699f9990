"""ONNX Runtime's quantizer with lookups by name makes the graphs that it makes without."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import qdq_quantizer
from onnxruntime.quantization.onnx_model import ONNXModel

from boardwright.compiler.engine import quantize as quantizing
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.indexed import indexed_model
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.scheme import PROFILES


@pytest.fixture(scope="module")
def branched() -> onnx.ModelProto:
    """A weight and an activation with two readers each, fused and own activations, an output in mid-graph."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w", "b"], ["left"], name="left", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["r", "", "most"], ["clipped"], name="clip"),
        helper.make_node("Concat", ["left", "clipped"], ["both"], name="join", axis=1),
        helper.make_node("Add", ["both", "both"], ["twice"], name="twice"),
        helper.make_node("GlobalAveragePool", ["twice"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "g", "c"], ["logits"], name="gemm"),
    ]
    shapes = {"w": (3, 3, 3, 3), "b": (3,), "g": (6, 5), "c": (5,)}
    stored = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    stored.append(numpy_helper.from_array(np.array(2, np.float32), "most"))
    graph = helper.make_graph(
        nodes,
        "branched",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 5]),
            helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
        stored,
    )
    return prepare_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("profile", ["x86-vnni", "vx-delegate", "tidl-mma1"])
@pytest.mark.parametrize(
    "kept", [set(), {"left", "join"}, {"first", "relu", "left", "clip", "join", "twice"}]
)
def test_the_graph_is_the_same(monkeypatch, branched, noise, profile, kept):
    record = observe(branched, [{"x": noise(1, 3, 8, 8)}])
    ours = quantizing.insert_quantization(branched, record, PROFILES[profile], kept)

    monkeypatch.setattr(quantizing, "indexed_model", ONNXModel)
    theirs = quantizing.insert_quantization(branched, record, PROFILES[profile], kept)

    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def test_nodes_may_be_named_as_the_quantizer_names_its_own(monkeypatch, branched, noise):
    record = observe(branched, [{"x": noise(1, 3, 8, 8)}])
    named = onnx.ModelProto.FromString(branched.SerializeToString())
    for node in named.graph.node:
        node.name = {"relu": "x_QuantizeLinear", "left": "x_DequantizeLinear"}.get(node.name, node.name)
    ours = quantizing.insert_quantization(named, record, PROFILES["x86-vnni"], set())

    monkeypatch.setattr(quantizing, "indexed_model", ONNXModel)
    theirs = quantizing.insert_quantization(named, record, PROFILES["x86-vnni"], set())

    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def test_a_tensor_is_found_by_its_first_name_in_either_kind_of_list(branched):
    indexed_model(branched)  # the runtime's quantizers ask the list from now on
    tensors = [numpy_helper.from_array(np.full(1, value, np.float32), "same") for value in (1, 2)]
    named = indexed_model(helper.make_model(helper.make_graph([], "two", [], [], tensors))).initializer()

    for known in (named, tensors):
        assert numpy_helper.to_array(qdq_quantizer.find_by_name("same", known))[0] == 1
        assert qdq_quantizer.find_by_name("other", known) is None
