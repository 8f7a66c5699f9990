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
from boardwright.model import InputSpec


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
    for told, size in (("[320, 416]", (320, 416)), ("[320]", (640, 640)), ("[1e999, -1]", (640, 640))):
        assert read_yolo_metadata({**written, "imgsz": told}).size == size
    assert read_yolo_metadata({**written, "names": "__import__('os').system('true')"}) is None
    assert read_yolo_metadata({**written, "names": "[" * 100_000}) is None


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"image": [1, 3, 8, 8], "age": [1, 1]}, "has 2 inputs ('image' [1, 3, 8, 8] of float32, 'age'"),
        ({"wave": [1, 1, 1024]}, "'wave' [1, 1, 1024] of float32 is no image"),
    ],
)
@pytest.mark.parametrize("declared", [None, InputSpec(height=8, width=8)])
def test_what_is_not_one_image_is_refused_whatever_was_declared(inputs, words, declared):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, inputs[name]) for name in inputs]
    model = ending_in("Identity", [1, 10])
    del model.graph.input[:]
    model.graph.input.extend(values)
    with pytest.raises(SpecMismatch) as caught:
        settle_input_spec(declared, model, None)
    assert caught.value.reason == "INPUT_NOT_AN_IMAGE"
    assert words in caught.value.message


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_ultralytics_heads_of_other_tasks_are_not_read_as_detections(task):
    """Mask coefficients and keypoints lie where a detection head has its class scores."""
    with pytest.raises(SpecMismatch) as caught:
        settle_output_spec(None, ending_in("Identity", [1, 116, 8400]), YoloMetadata(task, ("a",), False))
    assert caught.value.reason == "TASK_UNSUPPORTED"


def test_boxes_that_the_graph_suppresses_itself_are_an_end_to_end_head():
    """Ultralytics' export(nms=True): rows of corners, score and class, whatever the head was before."""
    written = {"author": "Ultralytics", "names": "{0: 'a', 1: 'b', 2: 'c'}", "task": "detect"}
    metadata = read_yolo_metadata({**written, "args": "{'nms': True, 'batch': 1}"})
    found = settle_output_spec(None, ending_in("Identity", [1, 300, 6]), metadata)
    assert (found.head, found.num_classes, found.box_format) == ("yolo-end2end", 3, "xyxy")
    with pytest.raises(SpecMismatch) as caught:  # one class by its width, three by its labels
        settle_output_spec(None, ending_in("Identity", [1, 300, 6]), read_yolo_metadata(written))
    assert caught.value.reason == "OUTPUT_SPEC_NEEDED"


def with_outputs(model: onnx.ModelProto, **outputs: tuple[int, list[int]]) -> onnx.ModelProto:
    for name, (element, shape) in outputs.items():
        model.graph.output.append(helper.make_tensor_value_info(name, element, shape))
    return model


def test_prototypes_of_masks_make_a_detection_head_doubtful():
    model = with_outputs(ending_in("Identity", [1, 116, 8400]), masks=(TensorProto.FLOAT, [1, 32, 160, 160]))
    with pytest.raises(SpecMismatch) as caught:
        settle_output_spec(None, model, None)
    assert caught.value.reason == "OUTPUT_SPEC_NEEDED"


def test_the_best_scores_of_more_classes_are_no_classification():
    model = ending_in("TopK", [1, 3])
    with pytest.raises(SpecMismatch) as caught:
        settle_output_spec(None, model, None, "classification")
    assert caught.value.reason == "OUTPUT_SPEC_NEEDED"


def test_axes_that_were_pooled_over_are_no_part_of_the_scores():
    found = settle_output_spec(None, ending_in("Softmax", [1, 10, 1, 1]), None, "classification")
    assert (found.head, found.num_classes) == ("probabilities", 10)


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.INT64])
def test_a_single_score_and_a_class_number_are_not_scores_by_class(element):
    model = ending_in("Sigmoid", [1, 1] if element == TensorProto.FLOAT else [1, 5])
    model.graph.output[0].type.tensor_type.elem_type = element
    with pytest.raises(SpecMismatch, match="one score for each class") as caught:
        settle_output_spec(None, model, None, "classification")
    assert caught.value.reason == "OUTPUT_SPEC_NEEDED"


def test_rows_of_boxes_that_were_left_are_no_classification():
    model = ending_in("Concat", [None, 7])
    model.graph.node.insert(0, helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["chosen"]))
    with pytest.raises(SpecMismatch) as caught:
        settle_output_spec(None, model, None)
    assert caught.value.reason == "OUTPUT_SPEC_NEEDED"


def test_scores_beside_a_label_are_found_and_shaping_hides_no_softmax():
    model = ending_in("Softmax", [1, 10])
    model.graph.node[0].output[0] = "before"
    model.graph.node.append(helper.make_node("Identity", ["before"], ["y"]))
    found = settle_output_spec(None, model, None)
    assert (found.name, found.head) == ("y", "probabilities")
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [1])
    model.graph.output.insert(0, label)
    assert settle_output_spec(None, model, None) == found


@pytest.mark.parametrize(
    ("given", "expected"), [([8, 3, 64, 96], (8, 64, 96)), (["n", 3, "h", "w"], (1, 320, 416))]
)
def test_what_ultralytics_fixed_is_kept_and_what_it_left_free_is_as_it_trained(given, expected):
    metadata = YoloMetadata("detect", ("a",), False, size=(320, 416))
    model = ending_in("Identity", given)
    model.graph.input[0].name = model.graph.node[0].input[0] = "images"
    found = settle_input_spec(None, model, metadata)
    assert (found.batch, found.height, found.width) == expected
