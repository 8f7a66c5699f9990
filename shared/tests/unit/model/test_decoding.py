import numpy as np
import pytest

from boardwright.model import (
    Classification,
    Detections,
    InputSpec,
    ModelError,
    OutputSpec,
    Placement,
    decode,
    decode_batch,
)

WHOLE = Placement(100, 100, 1.0, 1.0, 0.0, 0.0)


def detect(output: np.ndarray, **settings: object) -> Detections:
    spec = OutputSpec(task="detection", **{"num_classes": 2, **settings})  # type: ignore[arg-type]
    found = decode([output], spec, WHOLE)
    assert isinstance(found, Detections)
    return found


def test_logits_become_probabilities() -> None:
    spec = OutputSpec(task="classification", head="logits", num_classes=3)
    found = decode({"out": np.array([[1.0, 3.0, 2.0]])}, spec, WHOLE)
    assert isinstance(found, Classification)
    assert found.scores.sum() == pytest.approx(1.0) and found.top(2).tolist() == [1, 2]


def test_yolov5_multiplies_objectness() -> None:
    rows = np.array([[[50, 50, 20, 10, 0.5, 0.9, 0.1], [10, 10, 4, 4, 0.1, 0.9, 0.1]]], np.float32)
    found = detect(rows, head="yolov5")
    np.testing.assert_allclose(found.boxes, [[40, 45, 60, 55]])
    assert found.scores.tolist() == pytest.approx([0.45]) and found.classes.tolist() == [0]


def test_yolov8_is_read_either_way_round() -> None:
    rows = np.array(
        [[[50, 50, 20, 10, 0.1, 0.8], [20, 20, 4, 4, 0.7, 0.1], [0, 0, 1, 1, 0.0, 0.0]]], np.float32
    )
    for output in (rows, rows.transpose(0, 2, 1)):
        found = detect(output, head="yolov8")
        assert found.classes.tolist() == [1, 0] and found.scores.tolist() == pytest.approx([0.8, 0.7])


def test_suppression_is_within_a_class() -> None:
    rows = np.array(
        [[[50, 50, 20, 20, 0.9, 0.0], [51, 50, 20, 20, 0.8, 0.0], [50, 50, 20, 20, 0.0, 0.7]]], np.float32
    )
    found = detect(rows, head="yolov8")
    assert found.classes.tolist() == [0, 1] and found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_multi_label_reports_one_box_twice() -> None:
    rows = np.zeros((1, 10, 6), np.float32)
    rows[0, 0] = [50, 50, 20, 20, 0.9, 0.6]
    assert detect(rows, head="yolov8").classes.tolist() == [0]
    assert detect(rows, head="yolov8", multi_label=True).classes.tolist() == [0, 1]


def test_end_to_end_needs_no_suppression() -> None:
    rows = np.array([[[1, 2, 30, 40, 0.5, 1], [1, 2, 30, 40, 0.9, 1], [0, 0, 9, 9, 0.1, 0]]], np.float32)
    found = detect(rows, head="yolo-end2end")
    assert found.scores.tolist() == pytest.approx([0.9, 0.5]) and found.classes.tolist() == [1, 1]
    np.testing.assert_array_equal(found.boxes[0], [1, 2, 30, 40])


def test_no_candidate_gives_an_empty_result() -> None:
    for head, width in (("yolov5", 7), ("yolov8", 6), ("yolo-end2end", 6)):
        found = detect(np.zeros((1, 50, width), np.float32), head=head)
        assert len(found) == 0 and found.boxes.shape == (0, 4)


def test_normalised_boxes_use_the_input_size() -> None:
    rows = np.zeros((1, 10, 6), np.float32)
    rows[0, 0] = [0.5, 0.5, 0.2, 0.2, 0.9, 0.0]
    spec = OutputSpec(task="detection", head="yolov8", num_classes=2, boxes_normalized=True)
    found = decode([rows], spec, WHOLE, InputSpec(height=100, width=100))
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.boxes, [[40, 40, 60, 60]], atol=1e-4)
    with pytest.raises(ModelError, match="need the input spec"):
        decode([rows], spec, WHOLE)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([np.zeros((1, 9, 9))], "7 values per candidate"),
        ([np.zeros((2, 9, 7))], "a batch of 2 outputs for 1 images"),
        ({"other": np.zeros((1, 9, 7))}, "no output 'boxes'; there are: other"),
        ([], "gave no output"),
    ],
)
def test_shapes_that_contradict_the_spec(outputs: object, message: str) -> None:
    spec = OutputSpec(task="detection", head="yolov5", num_classes=2, name="boxes")
    with pytest.raises(ModelError, match=message) as caught:
        decode_batch(outputs, spec, [WHOLE])  # type: ignore[arg-type]
    assert caught.value.reason == "OUTPUTS_DO_NOT_FIT"


def test_suppression_agrees_with_a_plain_loop() -> None:
    from boardwright.model.boxes import iou_matrix, suppress

    random = np.random.default_rng(3)
    corner = random.uniform(0, 80, (300, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 40, (300, 2))], axis=1).astype(np.float32)
    scores = random.uniform(0, 1, 300).astype(np.float32)
    classes = random.integers(0, 3, 300)
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        rivals = [k for k in kept if classes[k] == classes[index]]
        if not rivals or iou_matrix(boxes[[index]].astype(float), boxes[rivals].astype(float)).max() <= 0.5:
            kept.append(int(index))
    assert suppress(boxes, scores, classes, 0.5, 1000).tolist() == kept
    assert suppress(boxes, scores, classes, 0.5, 7).tolist() == kept[:7]
