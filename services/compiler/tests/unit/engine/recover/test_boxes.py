"""A detector's error, told by its boxes: what differs counts by its score, and the background not at all."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest

from boardwright.compiler.engine.graph.editing import with_values
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.recover import RecoverOptions, recover
from boardwright.compiler.engine.recover.boxes import BoxJudge, distance
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.model import Detections, InputSpec, ModelError, OutputSpec

BOX = (10.0, 10.0, 30.0, 30.0)
FAR = (50.0, 50.0, 70.0, 70.0)
SPECS = (
    InputSpec(name="image", height=16, width=16),
    OutputSpec(task="detection", head="yolov5", num_classes=3),
)


def boxes(*rows):
    """Detections from (box, score, class)."""
    return Detections(
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([kind for _, _, kind in rows], np.intp),
    )


def test_the_same_boxes_differ_by_nothing_in_whatever_order():
    expected = boxes((BOX, 0.9, 1), (FAR, 0.4, 0))
    assert distance(expected, boxes((FAR, 0.4, 0), (BOX, 0.9, 1))) == pytest.approx(0, abs=1e-9)
    assert distance(boxes(), boxes()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (boxes(), 0.81),  # missed
        (boxes((BOX, 0.9, 1), (FAR, 0.5, 1)), 0.25),  # one too many
        (boxes((BOX, 0.6, 1)), 0.09),  # less sure
        (boxes((BOX, 0.9, 2)), 0.81 + 0.81),  # another class: one missed, one too many
        (boxes((FAR, 0.9, 1)), 0.81 + 0.81),  # elsewhere
        (boxes(((10, 10, 30, 20), 0.9, 1)), 0.81),  # half of it
        (boxes(((10, 10, 30, 25), 0.9, 1)), 0.81 / 2),  # three quarters
        (boxes((BOX, 0.9, 1), (BOX, 0.2, 2)), 0.04),  # another class beside it
    ],
)
def test_what_differs_counts_by_its_score(found, error):
    assert distance(boxes((BOX, 0.9, 1)), found) == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("near", [FAR, (27.0, 10.0, 47.0, 30.0)])
def test_a_missed_box_takes_no_other_s_place(near):
    expected, found = boxes((near, 0.9, 1), (BOX, 0.8, 1)), boxes((BOX, 0.8, 1))
    assert distance(expected, found) == distance(found, expected) == pytest.approx(0.81, abs=1e-6)


def test_two_boxes_of_one_object_are_not_both_right():
    twice = boxes((BOX, 0.9, 1), ((10, 10, 30, 29), 0.8, 1))
    assert distance(boxes((BOX, 0.9, 1)), twice) == pytest.approx(0.64, abs=1e-6)


def detector(objectness):
    """Convolutions over 16 cells, each with a box of its own, and objectness through a sigmoid."""
    random = np.random.default_rng(0)
    weights = {"a": random.normal(0, 0.3, (8, 3, 4, 4)), "b": random.normal(0, 0.6, (8, 8, 1, 1))}
    bias = np.array([8, 8, 4, 4, objectness, 0, 0, 0], np.float32)
    stored = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    stored += [
        onnx.numpy_helper.from_array(bias, "c"),
        onnx.numpy_helper.from_array(np.array([1, 8, 16]), "shape"),
        onnx.numpy_helper.from_array(np.array([4, 4]), "parts"),
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["image", "a"], ["map"], name="first", strides=[4, 4]),
        onnx.helper.make_node("Relu", ["map"], ["positive"], name="relu"),
        onnx.helper.make_node("Conv", ["positive", "b", "c"], ["cells"], name="last"),
        onnx.helper.make_node("Reshape", ["cells", "shape"], ["rows"], name="rows"),
        onnx.helper.make_node("Split", ["rows", "parts"], ["places", "logits"], axis=1, name="split"),
        onnx.helper.make_node("Sigmoid", ["logits"], ["scores"], name="sigmoid"),
        onnx.helper.make_node("Concat", ["places", "scores"], ["joined"], axis=1, name="join"),
        onnx.helper.make_node("Transpose", ["joined"], ["output"], perm=[0, 2, 1], name="last_move"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "detector",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 16, 16])],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, 16, 8])],
        stored,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return model, [{"image": random.random((1, 3, 16, 16), dtype=np.float32)} for _ in range(6)]


@pytest.mark.parametrize(
    ("objectness", "judged_by", "count"), [(2.0, "boxes", 6), (-2.8, "outputs", 2), (-20.0, "outputs", 2)]
)
def test_a_detector_is_judged_by_its_boxes_where_it_sees_more_than_faint_ones(objectness, judged_by, count):
    model, feeds = detector(objectness)
    options = RecoverOptions(samples=4, held_out=2)
    found = recover(model, lambda: feeds, PROFILES["x86-vnni"], options, specs=SPECS)
    assert json.loads(json.dumps(found.describe()))["judged_by"] == found.judged_by == judged_by
    assert found.held_out == count, "where nothing is learnt, no image is held back from judging boxes"
    assert 0 <= found.error_after <= found.error_before < 1
    assert recover(model, lambda: feeds, PROFILES["x86-vnni"], options).judged_by == "outputs"


def test_scores_that_are_no_numbers_are_infinitely_wrong_and_the_record_stays_json():
    model, feeds = detector(2.0)
    scheme = PROFILES["x86-vnni"]
    record = observe(model, feeds)
    head = {node.name for node in model.graph.node} - {"first", "relu"}  # rounded, a NaN would become 0
    judge = BoxJudge(model, lambda: feeds, scheme, head, SPECS)
    assert judge.error(model, record) < 1
    bias = onnx.numpy_helper.to_array(next(found for found in model.graph.initializer if found.name == "c"))
    broken = with_values(model, {"c": np.where(np.arange(8) == 7, np.float32("nan"), bias)})
    assert judge.error(broken, record) == math.inf
    found = replace(recover(model, lambda: feeds, scheme, record=record), error_before=math.inf)
    assert json.loads(json.dumps(found.describe(), allow_nan=False))["error_before"] is None


def test_an_output_spec_of_another_graph_is_refused():
    model, feeds = detector(2.0)
    other = SPECS[0], OutputSpec(task="detection", head="yolov5", num_classes=80)
    with pytest.raises(ModelError, match="do not fit"):
        recover(model, lambda: feeds, PROFILES["x86-vnni"], specs=other)
