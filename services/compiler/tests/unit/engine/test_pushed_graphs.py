"""ONNX files as other frameworks and older exporters push them, through import and on to INT8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.graph.widen import to_float32
from boardwright.compiler.engine.importing import Declared, ImportedModel, import_checkpoint
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
