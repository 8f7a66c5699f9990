"""Undecoded heads are told by structure; what is in doubt comes with an example to declare."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.errors import SpecMismatch
from boardwright.compiler.engine.specs import settle_output_spec
from boardwright.model import InputSpec, OutputSpec, Placement, decode

STRIDES = (8, 16, 32)


def grid_head(kind: str, classes: int = 3) -> onnx.ModelProto:
    """One layer per level straight from the image (64 x 64), joined as YOLOX's or NanoDet's export does."""
    rng = np.random.default_rng(0)
    nodes, constants, levels = [], {}, []
    width = classes + (32 if kind.startswith("nanodet") else 5)

    def layer(name: str, channels: int, stride: int) -> str:
        constants[f"{name}_w"] = rng.normal(0, 0.05, (channels, 3, stride, stride)).astype(np.float32)
        nodes.append(
            helper.make_node(
                "Conv", ["images", f"{name}_w"], [name], strides=[stride] * 2, kernel_shape=[stride] * 2
            )
        )
        return name

    def sigmoid(name: str) -> str:
        nodes.append(helper.make_node("Sigmoid", [name], [f"{name}_on"]))
        return f"{name}_on"

    for stride in STRIDES:
        if kind.startswith("nanodet"):
            layer(f"all{stride}", width, stride)
            constants["parts"] = np.array([classes, 32], np.int64)
            parts = [f"cls{stride}", f"sides{stride}"]
            nodes.append(helper.make_node("Split", [f"all{stride}", "parts"], parts, axis=1))
            parts[0] = sigmoid(parts[0])
        else:
            parts = [
                layer(f"box{stride}", 4, stride),
                sigmoid(layer(f"sure{stride}", 1, stride)),
                sigmoid(layer(f"cls{stride}", classes, stride)),
            ]
        nodes.append(helper.make_node("Concat", parts, [f"level{stride}"], axis=1))
        constants["flat"] = np.array([1, width, -1], np.int64)
        nodes.append(helper.make_node("Reshape", [f"level{stride}", "flat"], [f"cells{stride}"]))
        levels.append(f"cells{stride}")
    nodes.append(helper.make_node("Concat", levels, ["joined"], axis=2))
    last = "rows" if kind.endswith("decoded") else "output"
    nodes.append(helper.make_node("Transpose", ["joined"], [last], perm=[0, 2, 1]))
    if kind.endswith("decoded"):
        constants["scale"] = np.ones((1, 84, width), np.float32)
        nodes.append(helper.make_node("Mul", ["rows", "scale"], ["output"]))
    return _model(nodes, constants, {"output": [1, 84, width]}, [1, 3, 64, 64])


def outputs_only(outputs: dict[str, list[int]]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.zeros(shape, np.float32)))
        for name, shape in outputs.items()
    ]
    return _model(nodes, {}, outputs, [1, 3, 64, 64])


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    outputs: dict[str, list[int]],
    given: list[int],
) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("images", TensorProto.FLOAT, given)],
        [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("kind", "head"), [("yolox", "yolox"), ("yolox-decoded", "yolov5"), ("nanodet", "gfl")]
)
def test_grid_heads_are_told_by_what_lies_behind_the_output(kind, head):
    model = grid_head(kind)
    found = settle_output_spec(None, model, None)
    assert (found.head, found.num_classes) == (head, 3)
    if head != "yolov5":
        assert found.strides == STRIDES


@pytest.mark.parametrize("kind", ["yolox", "nanodet"])
def test_a_derived_spec_decodes_what_the_graph_gives(kind):
    from boardwright.compiler.engine.graph.session import open_session

    model = grid_head(kind)
    spec = settle_output_spec(None, model, None).for_evaluation()
    image = np.random.default_rng(1).random((1, 3, 64, 64), dtype=np.float32)
    outputs = open_session(model).run(None, {"images": image})
    found = decode(
        {"output": outputs[0]}, spec, Placement(64, 64, 1, 1, 0, 0), InputSpec(height=64, width=64)
    )
    assert len(found) > 0


def test_a_raw_grid_of_another_kind_is_asked_for_and_never_taken_for_decoded_boxes():
    odd = grid_head("nanodet", classes=3)
    for node in odd.graph.node:  # five bins per side: no head that is known has them
        if node.op_type == "Split":
            parts = next(tensor for tensor in odd.graph.initializer if tensor.name == "parts")
            parts.CopyFrom(numpy_helper.from_array(np.array([15, 20], np.int64), "parts"))
    with pytest.raises(SpecMismatch, match="what it means is not clear"):
        settle_output_spec(None, odd, None)


@pytest.mark.parametrize(
    ("outputs", "head"),
    [
        (
            {
                "detection_boxes": [1, 9, 4], "detection_classes": [1, 9], "detection_scores": [1, 9],
                "num_detections": [1],
            },
            "postprocessed",
        ),
        ({"boxes": [9, 4], "labels": [9], "scores": [9]}, "postprocessed"),
        ({"logits": [1, 100, 91], "pred_boxes": [1, 100, 4]}, "detr"),
        ({"scores": [1, 3000, 21], "locations": [1, 3000, 4]}, "dense"),
        ({"maps": [1, 3, 80, 80, 85], "more": [1, 3, 40, 40, 85]}, "plugin"),
    ],
)  # fmt: skip
def test_what_is_in_doubt_comes_with_an_example_that_is_valid(outputs, head):
    with pytest.raises(SpecMismatch) as caught:
        settle_output_spec(None, outputs_only(outputs), None)
    assert caught.value.reason == "OUTPUT_SPEC_NEEDED"
    document = re.search(r"\{.*\}", caught.value.message)
    assert document is not None
    spec = OutputSpec.from_json(json.loads(document[0]))
    assert spec.head == head
    assert all(name in outputs for name in (*spec.box_outputs, *spec.score_outputs))
