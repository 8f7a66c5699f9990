"""Other scales and mirrored images: each by itself, or merged into one answer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError, InformationLost
from boardwright.compiler.engine.evaluate import Augmentation, Sample, evaluate
from boardwright.compiler.engine.evaluate.merging import fuse, merge
from boardwright.compiler.engine.evaluate.views import plan_views, scaled_spec
from boardwright.model import Classification, Detections, InputSpec, OutputSpec

INPUT = InputSpec(height=64, width=96, name="images", resize="letterbox")
SQUARES = OutputSpec(task="detection", head="yolox", num_classes=2, strides=(8,))


def square_finder() -> onnx.ModelProto:
    """A YOLOX head whose weights are set by hand: it finds 8 px squares of red (0) and green (1)."""
    weights = np.zeros((7, 3, 8, 8), np.float32)
    weights[4, :2] = 40 / 64  # objectness: red or green
    weights[5, 0] = weights[6, 1] = 40 / 64
    bias = np.array([0.5, 0.5, 0, 0, -20, -20, -20], np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["raw"], strides=[8, 8], kernel_shape=[8, 8]),
        helper.make_node("Reshape", ["raw", "flat"], ["cells"]),
        helper.make_node("Split", ["cells", "parts"], ["box", "chance"], axis=1),
        helper.make_node("Sigmoid", ["chance"], ["score"]),
        helper.make_node("Concat", ["box", "score"], ["joined"], axis=1),
        helper.make_node("Transpose", ["joined"], ["output"], perm=[0, 2, 1]),
    ]
    constants = {"w": weights, "b": bias, "flat": np.array([1, 7, -1]), "parts": np.array([4, 3])}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "squares",
        [value("images", TensorProto.FLOAT, [1, 3, 64, 96])],
        [value("output", TensorProto.FLOAT, [1, 96, 7])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def scenes(count: int = 6, **extra):
    """Images with three squares each, in cells of 8 px; every other one a Pillow image."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 40, (64, 96, 3), dtype=np.uint8)
        boxes, classes = [], []
        for cell in rng.choice(96, 3, replace=False):
            x, y, kind = int(cell % 12) * 8, int(cell // 12) * 8, int(cell % 2)
            image[y : y + 8, x : x + 8] = 0
            image[y : y + 8, x : x + 8, kind] = 255
            boxes.append([x, y, x + 8, y + 8])
            classes.append(kind)
        shown = Image.fromarray(image) if number % 2 else image
        yield Sample(f"{number}", shown, boxes=np.array(boxes, float), classes=np.array(classes), **extra)


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(), Augmentation(flip=True), Augmentation(flip=True, merge="weighted")],
)
def test_a_detector_finds_its_squares_in_every_view(augmentation):
    found = evaluate(
        square_finder(), scenes(), INPUT, SQUARES, baseline=square_finder(), augmentation=augmentation
    )
    assert found.accuracy["map50_95"] == pytest.approx(1.0)
    assert found.accuracy["map50_95_small"] == pytest.approx(1.0)
    assert found.per_class["0"]["recall"] == pytest.approx(1.0)
    assert found.parity["f1_against_baseline"] == found.parity["map50_95_against_baseline"] == 1.0
    assert found.parity["map50_95_difference"] == 0.0
    assert found.intervals["map50_95_difference"] == (0.0, 0.0)
    assert bool(found.augmentation) == augmentation.flip
    if augmentation.flip:
        assert [view["flipped"] for view in found.augmentation["views"]] == [False, True]


def test_other_scales_are_judged_each_by_itself():
    found = evaluate(square_finder(), scenes(), INPUT, SQUARES, scales=(1, 2))
    assert found.by_scale["1"] == found.accuracy
    assert found.by_scale["2"]["map50_95"] < 0.5  # a square is four cells there, four boxes of half its side


def test_a_classifier_runs_at_other_scales_and_averages_its_views(classifier):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (9, 16, 16, 3), dtype=np.uint8)
    samples = []
    for number, image in enumerate(images):
        image[:, :, number % 3] += 150
        samples.append(Sample(str(number), image, class_index=number % 3))
    spec = InputSpec(height=16, width=16)
    head = OutputSpec(task="classification", head="logits", num_classes=3)
    augmentation = Augmentation(flip=True, scales=(1.0, 2.0))
    found = evaluate(classifier, samples, spec, head, augmentation=augmentation, scales=[0.5, 2])
    assert found.accuracy["top1"] == found.by_scale["2"]["top1"] == 1.0
    assert set(found.by_scale) == {"0.5", "2"}
    assert len(found.augmentation["views"]) == 4


def test_a_graph_with_sizes_in_constants_is_told(detector):
    head = OutputSpec(task="detection", head="yolov8", num_classes=2)
    sample = Sample("a", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(EngineError, match="sizes in constants") as caught:
        evaluate(detector, [sample], InputSpec(height=16, width=16, name="images"), head, scales=[2])
    assert caught.value.reason == "MODEL_FAILED"


@pytest.mark.parametrize(
    ("spec", "scale", "words"),
    [
        (InputSpec(height=16, width=16), 9.0, "0.1 to 4"),
        (InputSpec(height=16, width=16, resize="none"), 2.0, "no other scales"),
    ],
)
def test_scales_that_cannot_be_are_told(spec, scale, words):
    with pytest.raises(EngineError, match=words) as caught:
        scaled_spec(spec, scale)
    assert caught.value.reason == "SCALES_INVALID"


def test_sides_stay_multiples_of_their_step_and_the_crop_keeps_its_share():
    spec = InputSpec(height=224, width=224, resize="center-crop", resize_shorter=256)
    larger = scaled_spec(spec, 1.3)
    assert (larger.height, larger.width, larger.resize_shorter) == (288, 288, 329)
    assert scaled_spec(InputSpec(height=640, width=300), 0.5).shape[2:] == (320, 152)
    views = plan_views(spec, Augmentation(flip=True, scales=(1.3,)), [1.3, 1.3])
    assert [(view.scale, view.flipped) for view in views.views] == [(1.0, False), (1.3, False), (1.3, True)]
    assert views.merged == (1, 2) and views.by_scale == {1.3: 1}


def test_probabilities_are_averaged_and_a_single_answer_stays():
    head = OutputSpec(task="classification", head="logits", num_classes=2)
    one, other = (Classification(np.array(p, np.float32)) for p in ([0.9, 0.1], [0.2, 0.8]))
    assert merge([one], head, "nms") is one
    np.testing.assert_allclose(merge([one, other], head, "nms").scores, [0.55, 0.45])


def test_fusion_weighs_corners_by_score_and_lowers_what_one_view_missed():
    def found(*rows):
        matrix = np.array(rows, np.float32).reshape(-1, 6)
        return Detections(matrix[:, :4], matrix[:, 4], matrix[:, 5].astype(np.intp))

    fused = fuse([found([0, 0, 10, 10, 0.9, 0], [50, 50, 60, 60, 0.6, 1]), found([1, 0, 11, 10, 0.6, 0])], 10)
    np.testing.assert_allclose(fused.boxes, [[0.4, 0, 10.4, 10], [50, 50, 60, 60]], atol=1e-5)
    np.testing.assert_allclose(fused.scores, [0.75, 0.3], atol=1e-6)
    assert fused.classes.tolist() == [0, 1]
    assert len(fuse([found(), found()], 10)) == 0


def test_parity_tells_a_detector_that_sees_no_green_any_more():
    blind = square_finder()
    weights = next(tensor for tensor in blind.graph.initializer if tensor.name == "w")
    values = numpy_helper.to_array(weights).copy()
    values[6] = 0
    weights.CopyFrom(numpy_helper.from_array(values, "w"))
    found = evaluate(blind, scenes(), INPUT, SQUARES, baseline=square_finder())
    assert 0 < found.parity["f1_against_baseline"] < 0.9
    assert found.parity["map50_95_difference"] == pytest.approx(-0.5)
    assert found.per_class["1"]["map50_95"] == 0.0
    low, high = found.intervals["map50_95_difference"]
    assert low <= found.parity["map50_95_difference"] <= high
    assert found.parity["sqnr_db"] < 40 and found.baseline_accuracy["map50_95"] == pytest.approx(1.0)


def test_crowds_count_neither_for_nor_against():
    blind = [Sample("a", image.image, boxes=image.boxes[:1], classes=image.classes[:1]) for image in scenes()]
    whole = np.array([[0, 0, 96, 64], [0, 0, 96, 64.0]])
    crowded = [
        Sample("a", s.image, boxes=s.boxes, classes=s.classes, crowd_boxes=whole, crowd_classes=np.arange(2))
        for s in blind
    ]
    without, beside = (evaluate(square_finder(), group, INPUT, SQUARES) for group in (blind, crowded))
    assert without.accuracy["map50"] < 0.9 and beside.accuracy["map50"] == pytest.approx(1.0)
    assert beside.details["objects"] == 6


def test_outputs_that_are_no_numbers_are_lost_information():
    broken = square_finder()
    bias = next(tensor for tensor in broken.graph.initializer if tensor.name == "b")
    values = numpy_helper.to_array(bias).copy()
    values[0] = np.nan
    bias.CopyFrom(numpy_helper.from_array(values, "b"))
    found = evaluate(broken, scenes(), INPUT, SQUARES, baseline=square_finder())
    assert found.accuracy["map50"] == 0
    assert "6 of 6 answers hold NaN" in found.information.lost
    assert found.parity["sqnr_db"] < 60


def test_nothing_detected_where_labels_name_objects_is_lost_information():
    dark = [
        Sample(s.name, np.zeros((64, 96, 3), np.uint8), boxes=s.boxes, classes=s.classes) for s in scenes()
    ]
    found = evaluate(square_finder(), dark, INPUT, SQUARES)
    assert found.accuracy["map50"] == 0
    with pytest.raises(InformationLost, match="labels name 18 objects"):
        found.information.require()


@pytest.mark.parametrize(
    ("boxes", "classes", "words"),
    [
        ([[0, 0, 8, 8]], [2], "it has class 2, and the model knows 0 to 1"),
        ([[0, 0, 8, 8]], [-1], "it has class -1"),
        ([[0, 0, 8, 8]], [0, 1], "1 boxes with 2 classes"),
        ([[0, 0, 8, np.nan]], [0], "not finite"),
    ],
)
def test_labels_that_do_not_fit_are_told(boxes, classes, words):
    sample = Sample("x", np.zeros((64, 96, 3), np.uint8), boxes=np.array(boxes), classes=np.array(classes))
    with pytest.raises(DatasetUnfit, match=words) as caught:
        evaluate(square_finder(), [sample], INPUT, SQUARES)
    assert caught.value.reason == "LABELS_DO_NOT_FIT"


def test_a_wrong_number_of_classes_is_told():
    wrong = OutputSpec(task="detection", head="yolox", num_classes=5, strides=(8,))
    with pytest.raises(DatasetUnfit, match="has 10 values per candidate") as caught:
        evaluate(square_finder(), scenes(1), INPUT, wrong)
    assert caught.value.reason == "OUTPUTS_DO_NOT_FIT"
