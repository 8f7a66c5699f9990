"""ONNX files as other frameworks and older exporters push them, through import and on to INT8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.float16 import convert_float16
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.graph.widen import to_float32
from boardwright.compiler.engine.importing import Declared, ImportedModel, import_checkpoint
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.protect import excluded_names, protect
from boardwright.compiler.engine.quantize import insert_quantization, quantize
from boardwright.compiler.engine.recover import recover
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.model import InputSpec

SIZE = 16


def classifier(*middle: onnx.NodeProto) -> onnx.ModelProto:
    """Conv, Relu, [middle from a to m], pooling and Gemm."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["a"]),
        *(middle or [helper.make_node("Identity", ["a"], ["m"])]),
        helper.make_node("GlobalAveragePool", ["m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "kernel"),
            numpy_helper.from_array(rng.normal(size=(8, 4)).astype(np.float32), "weight"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def imported(folder: Path, model: onnx.ModelProto) -> ImportedModel:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    spec = InputSpec.from_json({"height": SIZE, "width": SIZE, "name": "image", "resize": "stretch"})
    return import_checkpoint(path, Declared(input_spec=spec, task="classification"))


@pytest.mark.parametrize("place", [0, 1])
def test_an_input_that_only_training_read_is_dropped_and_told(tmp_path, place):
    model = classifier()
    flag = helper.make_tensor_value_info("is_training", TensorProto.BOOL, [])
    model.graph.input.insert(place, flag)
    found = imported(tmp_path, model)
    assert [value.name for value in found.model.graph.input] == ["image"]
    assert any("'is_training'" in note for note in found.notes)


def test_an_input_that_is_read_is_not_dropped(tmp_path):
    model = classifier(helper.make_node("Mul", ["a", "factor"], ["m"]))
    model.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, []))
    with pytest.raises(EngineError, match="'factor'") as caught:
        imported(tmp_path, model)
    assert caught.value.reason == "INPUT_NOT_AN_IMAGE"


def test_sequences_of_float16_become_float32():
    model = classifier(
        helper.make_node("SplitToSequence", ["a"], ["parts"], axis=1),
        helper.make_node("ConcatFromSequence", ["parts"], ["m"], axis=1),
    )
    half = TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = half
    model.graph.value_info.append(helper.make_tensor_sequence_value_info("parts", half, None))
    assert to_float32(model) == {"float16": 2}
    image = np.zeros((1, 3, SIZE, SIZE), np.float32)
    assert open_session(model).run(None, {"image": image})[0].dtype == np.float32


def test_what_a_branch_reads_behind_integers_does_not_end_the_process():
    """ONNX Runtime (1.31) aborts on a Dequantize that only movement parts from a subgraph's outer tensor."""
    value = helper.make_tensor_value_info
    negative = helper.make_node("Neg", ["moved"], ["t"])
    then = helper.make_graph([negative], "then", [], [value("t", TensorProto.FLOAT, [1, 4])])
    same = helper.make_node("Identity", ["moved"], ["e"])
    other = helper.make_graph([same], "else", [], [value("e", TensorProto.FLOAT, [1, 4])])
    model = classifier()
    model.graph.node[-1].output[0] = "scores"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 4], np.int64), "shape"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    model.graph.node.extend(
        [
            helper.make_node("Reshape", ["scores", "shape"], ["moved"]),
            helper.make_node("ReduceMax", ["scores"], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "zero"], ["positive"]),
            helper.make_node("If", ["positive"], ["logits"], then_branch=then, else_branch=other),
        ]
    )
    rng = np.random.default_rng(1)
    feeds = [{"image": rng.random((1, 3, SIZE, SIZE), np.float32)} for _ in range(4)]
    prepared = prepare_graph(model)
    record = observe(prepared, feeds)
    tail = excluded_names(protect(prepared, record.ranges))
    rounded = insert_quantization(prepared, record, PROFILES["x86-vnni"], tail, spread=False)
    guard = next(node for node in rounded.graph.node if node.output[0] == "moved_captured")
    assert guard.op_type == "LeakyRelu"
    expected, actual = (open_session(graph).run(None, feeds[0])[0] for graph in (model, rounded))
    assert np.allclose(expected, actual, atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize("keep_io", [True, False])
def test_control_flow_over_operators_without_float16_stays_in_float32(keep_io):
    value = helper.make_tensor_value_info
    best = [
        helper.make_node("TopK", ["scores", "count"], ["t", "places"], sorted=1),
        helper.make_node("Neg", ["scores"], ["e"]),
    ]
    branches = [
        helper.make_graph([node], node.op_type, [], [value(node.output[0], TensorProto.FLOAT, [1, 4])])
        for node in best
    ]
    model = classifier()
    model.graph.node[-1].output[0] = "scores"
    model.graph.initializer.append(numpy_helper.from_array(np.array([4], np.int64), "count"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1e3, np.float32), "low"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["scores"], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "low"], ["high"]),
            helper.make_node("If", ["high"], ["logits"], then_branch=branches[0], else_branch=branches[1]),
        ]
    )
    done = convert_float16(model, keep_io=keep_io)
    (kept,) = (found for found in done.kept if found.rule == "no-kernel")
    assert "TopK in the branches of If" in kept.reason
    element = np.float32 if keep_io else np.float16
    image = np.random.default_rng(2).random((1, 3, SIZE, SIZE), np.float32)
    expected = open_session(model).run(None, {"image": image})[0]
    actual = open_session(done.model).run(None, {"image": image.astype(element)})[0]
    assert actual.dtype == element
    assert np.allclose(actual, expected, rtol=0.01)


def test_a_graph_quantized_at_run_time_is_told_from_one_without_layers():
    """It holds neither QuantizeLinear nor DequantizeLinear."""
    scheme = PROFILES["x86-vnni"]
    pushed = quantize_dynamic(classifier(), scheme, convolutions=True).model
    assert {"ConvInteger", "MatMulInteger"} <= {node.op_type for node in pushed.graph.node}
    feeds = [{"image": np.zeros((1, 3, SIZE, SIZE), np.float32)}]
    for run in (
        lambda: quantize(pushed, feeds, scheme),
        lambda: recover(pushed, lambda: feeds, scheme),
        lambda: quantize_dynamic(pushed, scheme),
        lambda: convert_float16(pushed),
    ):
        with pytest.raises(EngineError, match="recipe baseline") as caught:
            run()
        assert caught.value.reason == "ALREADY_QUANTIZED"


def test_that_a_pushed_graph_is_quantized_is_told_at_import(tmp_path):
    feeds = [{"image": np.zeros((1, 3, SIZE, SIZE), np.float32)}]
    found = imported(tmp_path, quantize(classifier(), feeds, PROFILES["x86-vnni"]).model)
    assert "holds integers already" in found.notes[-1]


def test_the_attention_of_newer_opsets_stays_beside_integer_layers():
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("q", "k", "v", "o")}
    nodes = [helper.make_node("MatMul", ["tokens", name], [f"{name}_made"]) for name in "qkv"]
    made = ["q_made", "k_made", "v_made"]
    nodes.append(helper.make_node("Attention", made, ["mixed"], q_num_heads=2, kv_num_heads=2))
    nodes.append(helper.make_node("MatMul", ["mixed", "o"], ["answer"]))
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [1, 4, 8])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 4, 8])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    assert quantize_dynamic(model, PROFILES["x86-vnni"]).layers == {"MatMul": 4}
