"""Evaluation: accuracy, parity as its own figure, and results that lost their information."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from boardwright.compiler.engine.errors import DatasetUnfit, InformationLost
from boardwright.compiler.engine.evaluate import Sample, evaluate, label_note
from boardwright.compiler.engine.evaluate.classifying import Classifying
from boardwright.compiler.engine.quality import InformationMeter
from boardwright.model import Classification, Detections, InputSpec, OutputSpec

INPUT = InputSpec(height=16, width=16, scale=1 / 255)
CLASSES = OutputSpec(task="classification", head="logits", num_classes=3)
BOXES = OutputSpec(task="detection", head="yolov8", num_classes=2)


def coloured(count=12, labelled=True):
    """Images whose strongest channel is their class."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 60, (16, 16, 3), dtype=np.uint8)
        image[:, :, number % 3] += 150
        yield Sample(f"{number}.png", image, class_index=number % 3 if labelled else None)


def blinded(model):
    """The same graph with the last layer's weights at zero: every answer equal."""
    changed = type(model)()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name == "weight":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((3, 3), np.float32), "weight"))
    return changed


def test_a_classifier_is_judged_by_its_labels(classifier):
    found = evaluate(classifier, coloured(), INPUT, CLASSES)
    assert found.accuracy == {"top1": 1.0}  # the five best of three classes are all of them
    assert set(found.intervals) == {"top1"}
    assert found.parity == {}
    assert (found.samples, found.labelled) == (12, 12)
    assert found.per_class["0"] == {"top1": 1.0, "samples": 4.0, "precision": 1.0}
    assert found.details["confusion"] == [[0, 0, 4], [1, 1, 4], [2, 2, 4]]
    assert found.intervals["top1"][1] == 1.0 and 0.7 < found.intervals["top1"][0] < 0.8
    assert not found.information.lost


@pytest.mark.parametrize(("classes", "told"), [(5, ["top1"]), (6, ["top1", "top5"])])
def test_top5_is_told_where_there_are_more_classes(classes, told):
    judging = Classifying(OutputSpec(task="classification", head="logits", num_classes=classes))
    scores = np.arange(classes, dtype=np.float32)
    judging.judge(Sample("0", None, class_index=0), Classification(scores), None)
    figures = judging.figures()
    assert figures.accuracy == dict.fromkeys(told, 0.0)  # of the six the label comes last
    assert list(figures.intervals) == told


def test_what_follows_the_last_sample_is_told(classifier):
    heard = []
    evaluate(classifier, coloured(2), INPUT, CLASSES, on_sample=heard.append, on_stage=heard.append)
    assert heard == [1, 2, "figures and their intervals"]


def test_parity_is_a_figure_of_its_own_and_needs_no_labels(classifier):
    found = evaluate(classifier, coloured(labelled=False), INPUT, CLASSES, baseline=classifier)
    assert found.accuracy == {}
    assert found.parity == {"top1_agreement": 1.0, "sqnr_db": 120.0}


def test_a_blind_classifier_is_told_beside_its_baseline(classifier):
    found = evaluate(blinded(classifier), coloured(), INPUT, CLASSES, baseline=classifier)
    assert "All class scores are" in found.information.lost
    with pytest.raises(InformationLost, match="smaller and useless"):
        found.information.require()


def test_a_checkpoint_that_answers_nothing_is_not_blamed_on_a_pass(classifier):
    blind = blinded(classifier)
    for baseline, advice in (
        (blind, "The checkpoint itself answers so"),
        (None, "its float baseline beside it"),
    ):
        found = evaluate(blind, coloured(), INPUT, CLASSES, baseline=baseline)
        with pytest.raises(InformationLost, match=advice):
            found.information.require()


def test_one_class_only_is_told_where_the_baseline_varies():
    ours, theirs = InformationMeter("classification"), InformationMeter("classification")
    for number in range(10):
        ours.add(Classification(np.array([0.6, 0.4], np.float32)))
        theirs.add(Classification(np.eye(2, dtype=np.float32)[number % 2]))
    assert "answered with class 0" in ours.verdict(theirs).lost
    assert not theirs.verdict(theirs).lost


def detections(scores, classes=None):
    count = len(scores)
    found = np.zeros(count, np.intp) if classes is None else np.array(classes, np.intp)
    return Detections(np.zeros((count, 4), np.float32), np.array(scores, np.float32), found)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ([([], [])], "Nothing is detected in 4 samples, where the baseline is sure of 12 objects"),
        ([([0.5] * 3, [0, 1, 1])], "All 12 detections have the score 0.5"),
        (
            [([0.9, 0.8], [0, 0])],
            "Every object that is left is of class 0; the baseline is sure of 8 objects",
        ),
        ([([0.9, 0.3], [0, 1])], ""),
    ],
    ids=["none", "all alike", "one class", "fine"],
)
def test_a_detector_that_lost_its_information_is_told(left, told):
    ours, theirs = InformationMeter("detection"), InformationMeter("detection")
    ((scores, classes),) = left
    for _ in range(4):
        ours.add(detections(scores, classes))
        theirs.add(detections([0.9, 0.7, 0.6, 0.1], [0, 1, 2, 3]))
    assert (told in ours.verdict(theirs).lost) if told else not ours.verdict(theirs).lost


def test_one_sure_object_is_enough_to_miss_it_when_nothing_is_detected():
    ours, theirs = InformationMeter("detection"), InformationMeter("detection")
    ours.add(detections([]))
    theirs.add(detections([0.9]))
    assert "Nothing is detected in 1 samples" in ours.verdict(theirs).lost


def test_detections_that_are_gone_are_told():
    def found(count):
        return detections([0.9] * count)

    none, few, many = (InformationMeter("detection") for _ in range(3))
    for number in range(10):
        none.add(found(0))
        few.add(found(1 if number == 0 else 0))
        many.add(found(5))
    assert "Nothing is detected in 10 samples" in none.verdict(many).lost
    assert "Of 50 objects that the baseline is sure of, 1 are left" in few.verdict(many).lost
    assert not none.verdict(none).lost


def test_a_detector_is_judged_by_its_boxes(detector):
    stride = next(tensor for tensor in detector.graph.initializer if tensor.name == "stride")
    stride.CopyFrom(numpy_helper.from_array(np.array(12, np.float32), "stride"))  # within 16 pixels
    image = np.zeros((16, 16, 3), np.uint8)
    sample = Sample("a", image, boxes=np.array([[0.0, 0, 8, 8]]), classes=np.array([1]))
    found = evaluate(detector, [sample], INPUT_IMAGES, BOXES, baseline=detector)
    assert {"map50", "map50_95", "map75", "recall_100", "map50_95_small"} <= set(found.accuracy)
    assert "map50_95_large" not in found.accuracy  # there is no such object
    assert found.parity["map50_against_baseline"] == pytest.approx(1.0)


INPUT_IMAGES = InputSpec(height=16, width=16, name="images")


@pytest.mark.parametrize(
    ("sample", "spec", "words"),
    [
        (Sample("a", np.zeros((16, 16, 3), np.uint8), class_index=7), CLASSES, "labels must be 0 to 2"),
        (
            Sample("a", np.zeros((16, 16, 3), np.uint8), boxes=np.zeros((0, 4)), classes=np.zeros(0, int)),
            CLASSES,
            "labelled with boxes, and the model is a classifier",
        ),
    ],
)
def test_labels_of_another_task_are_told(classifier, sample, spec, words):
    with pytest.raises(DatasetUnfit) as caught:
        evaluate(classifier, [sample], INPUT, spec)
    assert words in caught.value.message
    assert "Sample 'a'" in caught.value.message


def test_nothing_to_judge_with_is_told(classifier):
    with pytest.raises(DatasetUnfit, match="no sample to evaluate with"):
        evaluate(classifier, [], INPUT, CLASSES)


def test_missing_labels_are_noted_and_never_look_like_a_figure(classifier):
    assert label_note(evaluate(classifier, coloured(), INPUT, CLASSES)) == ""
    alone = evaluate(classifier, coloured(labelled=False), INPUT, CLASSES)
    assert alone.accuracy == {}
    assert label_note(alone) == "None of the 12 samples has a label: accuracy is not measured, nothing is."
    beside = evaluate(classifier, coloured(labelled=False), INPUT, CLASSES, baseline=classifier)
    assert "only parity with the baseline is" in label_note(beside)
    mixed = [*coloured(4), *coloured(4, labelled=False)]
    assert "over the 4 of 8 samples" in label_note(evaluate(classifier, mixed, INPUT, CLASSES))
