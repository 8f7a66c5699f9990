"""Which head an output is, told by shape and metadata; where they leave a doubt, the pusher is asked."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from boardwright.compiler.engine.errors import SpecMismatch
from boardwright.compiler.engine.specs import (
    YoloMetadata,
    read_yolo_metadata,
    settle_input_spec,
    settle_output_spec,
)


def ending_in(operator: str, shape: list[int]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"])],
        "net",
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(
    ("shape", "labels", "end_to_end", "head", "classes"),
    [
        ([1, 25200, 85], (), None, "yolov5", 80),
        ([1, 84, 8400], (), None, "yolov8", 80),
        ([1, 8400, 7], ("a", "b", "c"), False, "yolov8", 3),
        ([1, 300, 6], ("a", "b"), True, "yolo-end2end", 2),
        ([1, 252, 6], ("a",), False, "yolov5", 1),
        ([1, 5, 2100], ("a",), False, "yolov8", 1),
    ],
)
def test_detection_heads_are_told_by_their_shape(shape, labels, end_to_end, head, classes):
    metadata = None if end_to_end is None else YoloMetadata("detect", labels, end_to_end)
    found = settle_output_spec(None, ending_in("Identity", shape), metadata)
    assert (found.task, found.head, found.num_classes, found.labels) == ("detection", head, classes, labels)


@pytest.mark.parametrize(
    ("shape", "head"), [([1, 300, 6], "RTDETRDecoder"), ([1, 300, 7], ""), (["a", "b", 6], "RTDETRDecoder")]
)
def test_an_rt_detr_is_told_by_ultralytics_metadata_and_sees_stretched_images(shape, head):
    metadata = YoloMetadata("detect", ("a", "b", "c"), False, head)
    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["images"], ["y"])
    images, output = value("images", TensorProto.FLOAT, [1, 3, 64, 64]), value("y", TensorProto.FLOAT, shape)
    model = helper.make_model(helper.make_graph([node], "net", [images], [output]))
    found = settle_output_spec(None, model, metadata)
    assert (found.head, found.num_classes, found.boxes_normalized) == ("detr", 3, True)
    assert settle_input_spec(None, model, metadata).resize == "stretch"


@pytest.mark.parametrize(("operator", "head"), [("Identity", "logits"), ("Softmax", "probabilities")])
def test_classifiers_are_told_by_their_last_operator(operator, head):
    found = settle_output_spec(None, ending_in(operator, [1, 10]), None, "classification")
    assert (found.head, found.num_classes) == (head, 10)


@pytest.mark.parametrize(
    ("shape", "task"),
    [([1, 300, 6], ""), ([1, 3, 64, 64], ""), ([1, 10], "detection"), ([1, 4, 4], "detection")],
)
def test_what_is_not_clear_is_asked_for(shape, task):
    with pytest.raises(SpecMismatch, match="what it means is not clear") as caught:
        settle_output_spec(None, ending_in("Identity", shape), None, task)
    assert caught.value.reason == "OUTPUT_SPEC_NEEDED"
    assert str(shape) in caught.value.message


def test_metadata_counts_only_where_ultralytics_wrote_it_and_it_is_whole():
    written = {"author": "Ultralytics", "names": "{1: 'b', 0: 'a'}", "task": "detect", "end2end": "True"}
    assert read_yolo_metadata(written) == YoloMetadata("detect", ("a", "b"), True)
    assert read_yolo_metadata({**written, "author": "someone"}) is None
    assert read_yolo_metadata({**written, "names": "__import__('os').system('true')"}) is None
    assert read_yolo_metadata({**written, "names": "[" * 100_000}) is None
