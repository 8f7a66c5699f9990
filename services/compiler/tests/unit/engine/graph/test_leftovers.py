"""Graphs as other frameworks' converters leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.float16 import convert_float16
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.compiler.engine.pruning import PruneOptions, prune
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.model import InputSpec

_ML = "ai.onnx.ml"
_VALUE = helper.make_tensor_value_info
_RNG = np.random.default_rng(0)
_STORED = {
    "kernel": _RNG.normal(size=(8, 3, 3, 3)).astype(np.float32),
    "weight": _RNG.normal(size=(4, 8)).astype(np.float32),
}
_IMAGE = _VALUE("input", TensorProto.FLOAT, [1, 3, 8, 8])
_FEEDS = [{"input": _RNG.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]


def graph(
    nodes: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto],
    stored: dict[str, np.ndarray],
    *,
    opset: int = 17,
    given: onnx.ValueInfoProto = _IMAGE,
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "net",
        [given],
        outputs,
        [numpy_helper.from_array(values, name) for name, values in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(_ML, 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def classifier() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "weight"], ["logits"], transB=1),
    ]
    return graph(nodes, [_VALUE("logits", TensorProto.FLOAT, [1, 4])], _STORED)


def test_a_weight_whose_shape_is_declared_is_quantized_dynamically():
    model = classifier()
    model.graph.value_info.append(_VALUE("weight", TensorProto.FLOAT, [4, 8]))  # as torch.export's does
    done = quantize_dynamic(model, PROFILES["x86-vnni"])
    assert done.layers == {"Gemm": 1}


def test_what_is_quantized_already_is_neither_quantized_again_nor_pruned():
    done = quantize_dynamic(classifier(), PROFILES["x86-vnni"], convolutions=True)
    for again in (
        lambda: quantize_dynamic(done.model, PROFILES["x86-vnni"]),
        lambda: prune(done.model, _FEEDS, PruneOptions(amount=0.2)),
    ):
        with pytest.raises(EngineError) as caught:
            again()
        assert caught.value.reason == "ALREADY_QUANTIZED"


def test_a_resize_whose_scales_are_empty_is_converted_to_float16():
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["a"]),
        helper.make_node("Resize", ["a", "none", "none", "sizes"], ["y"], mode="linear"),
    ]
    stored = {
        "kernel": _STORED["kernel"],
        "none": np.zeros(0, np.float32),
        "sizes": np.array([1, 8, 12, 12]),
    }
    model = graph(nodes, [_VALUE("y", TensorProto.FLOAT, [1, 8, 12, 12])], stored, opset=11)
    near = open_session(convert_float16(model).model).run(None, _FEEDS[0])[0]
    exact = open_session(model).run(None, _FEEDS[0])[0]
    assert np.abs(near - exact).max() < 0.01 * np.abs(exact).max()


def test_layers_behind_an_operator_of_classical_converters_are_quantized():
    nodes = [
        helper.make_node("Scaler", ["rows"], ["a"], domain=_ML, offset=[0.5] * 8, scale=[2.0] * 8),
        helper.make_node("MatMul", ["a", "columns"], ["y"]),
    ]
    rows = _VALUE("rows", TensorProto.FLOAT, [1, 8])
    outputs = [_VALUE("y", TensorProto.FLOAT, [1, 4])]
    model = graph(nodes, outputs, {"columns": _STORED["weight"].T.copy()}, given=rows)
    feeds = [{"rows": _RNG.normal(size=(1, 8)).astype(np.float32)} for _ in range(4)]
    assert quantize(model, feeds, PROFILES["x86-vnni"]).kernels["integer_layers"] == 1


def test_a_dictionary_of_scores_is_imported_as_the_scores(tmp_path: Path):
    model = classifier()
    model.graph.node.extend(
        [
            helper.make_node("Softmax", ["logits"], ["shares"]),
            helper.make_node("ArgMax", ["shares"], ["label"], axis=1, keepdims=0),
            helper.make_node(
                "ZipMap", ["shares"], ["scores"], domain=_ML, classlabels_strings=["a", "b", "c", "d"]
            ),
        ]
    )
    element = onnx.TypeProto.Tensor(elem_type=TensorProto.FLOAT)
    kind = onnx.TypeProto()
    kind.sequence_type.elem_type.map_type.key_type = TensorProto.STRING
    kind.sequence_type.elem_type.map_type.value_type.tensor_type.CopyFrom(element)
    del model.graph.output[:]
    model.graph.output.extend(
        [_VALUE("label", TensorProto.INT64, [1]), onnx.ValueInfoProto(name="scores", type=kind)]
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    found = import_checkpoint(path, Declared(input_spec=InputSpec(height=8, width=8)))
    spec = found.output_spec
    assert (spec.name, spec.head, spec.labels) == ("scores", "probabilities", ("a", "b", "c", "d"))
    assert "'scores' was a dictionary" in found.notes[-1]
    scores = open_session(found.model).run(["scores"], _FEEDS[0])[0]
    np.testing.assert_allclose(scores.sum(), 1, atol=1e-6)
