"""Each detection head beside a reference written from its paper's formulas, cell by cell."""

import math

import numpy as np
import pytest

from boardwright.model import Detections, InputSpec, ModelError, OutputSpec, Placement, decode
from boardwright.model.heads import HEADS
from boardwright.model.priors import prior_boxes

WIDTH, HEIGHT = 96, 64
WHOLE = Placement(WIDTH, HEIGHT, 1.0, 1.0, 0.0, 0.0)
INPUT = InputSpec(width=WIDTH, height=HEIGHT)


def detect(outputs: object, **settings: object) -> Detections:
    settings = {"num_classes": 3, "score_threshold": 0.3, **settings}
    spec = OutputSpec(task="detection", **settings)  # type: ignore[arg-type]
    found = decode(outputs, spec, WHOLE, INPUT)  # type: ignore[arg-type]
    assert isinstance(found, Detections)
    return found


def reference(
    rows: list[tuple[list[float], list[float]]], threshold: float = 0.3, iou: float = 0.45
) -> list[tuple[float, int, list[float]]]:
    """Best class per row, greedy suppression per class in plain loops: (score, class, xyxy)."""

    def overlap(a: list[float], b: list[float]) -> float:
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        inner = max(0.0, width) * max(0.0, height)
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return inner / (sum(areas) - inner)

    kept: list[tuple[float, int, list[float]]] = []
    best = [(max(scores), scores.index(max(scores)), box) for box, scores in rows]
    for score, index, box in sorted(best, key=lambda entry: -entry[0]):
        rivals = [other for _, kind, other in kept if kind == index]
        if score > threshold and all(overlap(box, other) <= iou for other in rivals):
            kept.append((score, index, box))
    return [
        (s, c, [min(max(v, 0), limit) for v, limit in zip(b, [WIDTH, HEIGHT] * 2, strict=True)])
        for s, c, b in kept
    ]


def check(found: Detections, expected: list[tuple[float, int, list[float]]]) -> None:
    assert len(expected) >= 5
    np.testing.assert_allclose(found.scores, [entry[0] for entry in expected], rtol=1e-5)
    assert found.classes.tolist() == [entry[1] for entry in expected]
    np.testing.assert_allclose(found.boxes, [entry[2] for entry in expected], rtol=1e-4, atol=1e-3)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def softmax(values: list[float]) -> list[float]:
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / sum(weights) for weight in weights]


def grid(strides: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(column, row, stride) of every cell, finest level first, row by row."""
    return [
        (column, row, stride)
        for stride in strides
        for row in range(math.ceil(HEIGHT / stride))
        for column in range(math.ceil(WIDTH / stride))
    ]


@pytest.mark.parametrize("transposed", [False, True])
def test_yolox_adds_the_cell_and_exponentiates_sizes(transposed: bool) -> None:
    cells = grid((8, 16, 32))
    random = np.random.default_rng(1)
    rows = np.concatenate(
        [random.normal(0.5, 0.5, (len(cells), 2)), random.normal(0, 0.5, (len(cells), 2)),
         random.uniform(0, 1, (len(cells), 4))], axis=1,
    ).astype(np.float32)  # fmt: skip
    expected = []
    for (column, row, stride), (x, y, w, h, sure, *scores) in zip(cells, rows.tolist(), strict=True):
        cx, cy = (x + column) * stride, (y + row) * stride
        w, h = math.exp(w) * stride, math.exp(h) * stride
        expected.append(
            ([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], [sure * score for score in scores])
        )
    output = rows.T[np.newaxis] if transposed else rows[np.newaxis]
    check(detect([output], head="yolox"), reference(expected))


def test_decoded_yolox_is_read_by_head_yolov5() -> None:
    raw = np.random.default_rng(2).uniform(0, 1, (1, 126, 8)).astype(np.float32)
    decoded = raw.copy()
    for place, (column, row, stride) in enumerate(grid((8, 16, 32))):
        decoded[0, place, :2] = (raw[0, place, :2] + [column, row]) * stride
        decoded[0, place, 2:4] = np.exp(raw[0, place, 2:4]) * stride
    found, same = detect([raw], head="yolox"), detect([decoded], head="yolov5")
    np.testing.assert_allclose(found.boxes, same.boxes, atol=1e-3)
    assert len(found) > 5


def nanodet_rows(strides: tuple[int, ...], bins: int, offset: float) -> tuple[np.ndarray, list]:  # type: ignore[type-arg]
    cells = grid(strides)
    random = np.random.default_rng(3)
    scores = random.uniform(0, 1, (len(cells), 3)).astype(np.float32)
    sides = random.normal(0, 2, (len(cells), 4 * bins)).astype(np.float32)
    expected = []
    for (column, row, stride), values, chances in zip(cells, sides.tolist(), scores.tolist(), strict=True):
        distances = []
        for side in range(4):
            weights = softmax(values[side * bins : (side + 1) * bins])
            distances.append(stride * sum(bin_ * weight for bin_, weight in enumerate(weights)))
        x, y = (column + offset) * stride, (row + offset) * stride
        left, top, right, bottom = distances
        expected.append(([x - left, y - top, x + right, y + bottom], chances))
    return np.concatenate([scores, sides], axis=1), expected


@pytest.mark.parametrize(("strides", "offset"), [((8, 16, 32), 0.5), ((8, 16, 32, 64), 0.0)])
def test_gfl_takes_the_mean_of_each_sides_distribution(strides: tuple[int, ...], offset: float) -> None:
    rows, expected = nanodet_rows(strides, 8, offset)
    found = detect([rows[np.newaxis]], head="gfl", strides=strides, cell_offset=offset)
    check(found, reference(expected))


def test_gfl_levels_in_outputs_of_their_own_in_any_order() -> None:
    rows, expected = nanodet_rows((8, 16, 32), 8, 0.0)
    outputs, start = {}, 0
    for stride in (8, 16, 32):
        height, width = math.ceil(HEIGHT / stride), math.ceil(WIDTH / stride)
        level = rows[start : start + height * width]
        start += height * width
        outputs[f"sides_{stride}"] = level[np.newaxis, :, 3:]
        # as feature maps (C, H, W)
        outputs[f"scores_{stride}"] = level[:, :3].T.reshape(1, 3, height, width)
    backwards = dict(reversed(outputs.items()))
    for given in (outputs, backwards):
        check(detect(given, head="gfl"), reference(expected))
    names = {
        "box_outputs": tuple(name for name in backwards if "sides" in name),
        "score_outputs": tuple(name for name in backwards if "scores" in name),
    }
    check(detect(backwards, head="gfl", **names), reference(expected))


LEVELS = (
    {"grid": [4, 6], "stride": 16, "sizes": [[20, 20], [28, 14]]},
    {"grid": [2, 3], "stride": [32, 32], "sizes": [[40, 40]], "offset": 0.5},
)


def ssd_case() -> tuple[np.ndarray, np.ndarray, list]:  # type: ignore[type-arg]
    random = np.random.default_rng(4)
    offsets = random.normal(0, 1, (54, 4)).astype(np.float32)
    logits = random.normal(0, 3, (54, 4)).astype(np.float32)
    places = [
        ((column + 0.5) * 16, (row + 0.5) * 16, *size)
        for row in range(4) for column in range(6) for size in ((20, 20), (28, 14))
    ]  # fmt: skip
    places += [((column + 0.5) * 32, (row + 0.5) * 32, 40, 40) for row in range(2) for column in range(3)]
    expected = []
    for (px, py, pw, ph), (dx, dy, dw, dh), row in zip(
        places, offsets.tolist(), logits.tolist(), strict=True
    ):
        x, y = px + 0.1 * dx * pw, py + 0.1 * dy * ph
        w, h = pw * math.exp(0.2 * dw), ph * math.exp(0.2 * dh)
        expected.append(([x - w / 2, y - h / 2, x + w / 2, y + h / 2], softmax(row)[1:]))
    return offsets, logits, expected


def test_ssd_moves_declared_priors() -> None:
    offsets, logits, expected = ssd_case()
    # three classes and a background are four scores, as wide as the boxes: names tell them apart
    found = detect(
        {"conf": logits[np.newaxis], "loc": offsets[np.newaxis]},
        head="ssd", priors=LEVELS, score_activation="softmax", background="first",
        box_outputs=("loc",), score_outputs=("conf",),
    )  # fmt: skip
    check(found, reference(expected))


def test_ssd_reads_priors_from_the_graph_and_tensorflows_order() -> None:
    offsets, logits, expected = ssd_case()
    priors = prior_boxes(LEVELS) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    found = detect(
        {"conf": logits[np.newaxis], "loc": offsets[np.newaxis][:, :, [1, 0, 3, 2]], "p": priors[np.newaxis]},
        head="ssd", prior_output="p", score_activation="softmax", background="first", box_format="yxyx",
        box_outputs=("loc",), score_outputs=("conf",),
    )  # fmt: skip
    check(found, reference(expected))


def test_dense_boxes_and_sigmoid_scores_are_told_by_their_shapes() -> None:
    random = np.random.default_rng(5)
    corner = random.uniform(0, 0.6, (40, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.1, 0.4, (40, 2))], axis=1)
    logits = random.normal(0, 2, (40, 3))
    expected = [
        ([b[0] * WIDTH, b[1] * HEIGHT, b[2] * WIDTH, b[3] * HEIGHT], [sigmoid(value) for value in row])
        for b, row in zip(boxes.tolist(), logits.tolist(), strict=True)
    ]
    for scores in (logits[np.newaxis], logits.T[np.newaxis]):
        found = detect(
            {"s": scores, "b": boxes[np.newaxis]},
            head="dense", box_format="xyxy", boxes_normalized=True, score_activation="sigmoid",
        )  # fmt: skip
        check(found, reference(expected))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_detr_suppresses_nothing(activation: str) -> None:
    random = np.random.default_rng(6)
    centre, size = random.uniform(0.2, 0.8, (20, 2)), random.uniform(0.1, 0.3, (20, 2))
    boxes = np.concatenate([centre, size], axis=1)
    boxes[1] = boxes[0]
    logits = random.normal(0, 2, (20, 4 if activation == "softmax" else 3))
    logits[:2, 0] = 6
    rows = []
    for (x, y, w, h), values in zip(boxes.tolist(), logits.tolist(), strict=True):
        chances = softmax(values)[:-1] if activation == "softmax" else [sigmoid(v) for v in values]
        box = [(x - w / 2) * WIDTH, (y - h / 2) * HEIGHT, (x + w / 2) * WIDTH, (y + h / 2) * HEIGHT]
        rows.append((box, chances))
    found = detect(
        {"pred_logits": logits[np.newaxis], "pred_boxes": boxes[np.newaxis]},
        head="detr", score_activation=activation, background="last" if activation == "softmax" else "none",
        box_outputs=("pred_boxes",), score_outputs=("pred_logits",), multi_label=True,
    )  # fmt: skip
    if activation == "softmax":
        check(found, reference(rows, iou=1.1))
    else:  # several classes per query, each by its own score
        each = [
            (box, [chance if n == k else 0 for n in range(3)]) for box, chances in rows
            for k, chance in enumerate(chances)
        ]  # fmt: skip
        check(found, reference(each, iou=1.1))


def test_tensorflow_style_outputs() -> None:
    found = detect(
        {
            "detection_boxes": np.array([[[0.25, 0.5, 0.75, 1.0], [0, 0, 0.5, 0.5], [0, 0, 1, 1]]]),
            "detection_classes": np.array([[2.0, 1.0, 1.0]]),
            "detection_scores": np.array([[0.9, 0.8, 0.7]]),
            "num_detections": np.array([2.0]),
        },
        head="postprocessed", box_format="yxyx", boxes_normalized=True, class_offset=1,
        count_output="num_detections",
    )  # fmt: skip
    np.testing.assert_allclose(found.boxes, [[48, 16, 96, 48], [0, 0, 48, 32]])
    assert found.classes.tolist() == [1, 0] and found.scores.tolist() == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_torchvision_style_outputs_have_no_batch_axis(count: int) -> None:
    boxes = np.tile(np.array([[4, 5, 30, 40]], np.float32), (count, 1))
    scores = np.linspace(0.9, 0.5, count, dtype=np.float32)
    labels = np.ones(count, np.int64)
    found = detect([boxes, labels, scores], head="postprocessed", box_format="xyxy", class_offset=1)
    assert len(found) == count and found.classes.tolist() == [0] * count
    np.testing.assert_allclose(found.boxes, boxes)


@pytest.mark.parametrize("classes", [3, 2])
def test_detr_in_one_output_by_class_index_or_by_class_scores(classes: int) -> None:
    random = np.random.default_rng(8)
    boxes = np.concatenate([random.uniform(0.2, 0.8, (20, 2)), random.uniform(0.1, 0.3, (20, 2))], axis=1)
    chances = random.uniform(0.05, 0.95, (20, classes))
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    corners *= [WIDTH, HEIGHT, WIDTH, HEIGHT]
    best = chances.argmax(axis=1)
    order = np.argsort(-chances.max(axis=1))
    indexed = np.concatenate([boxes, chances.max(axis=1)[:, np.newaxis], best[:, np.newaxis]], axis=1)
    for output in (indexed, np.concatenate([boxes, chances], axis=1)):
        found = detect([output[np.newaxis]], head="detr", num_classes=classes, score_threshold=0.0)
        np.testing.assert_allclose(found.boxes, corners[order], atol=1e-4)
        np.testing.assert_allclose(found.scores, chances.max(axis=1)[order], rtol=1e-6)
        assert found.classes.tolist() == best[order].tolist()


def test_values_that_are_no_numbers_give_no_detection() -> None:
    row = np.array([[10, 10, 4, 4, 0.9, 0.1, 0.1], [np.nan, 5, 5, 5, 0.9, 0, 0], [5, 5, np.inf, 5, 0.9, 0, 0],
                    [30, 30, 4, 4, np.nan, 0.1, 0.1]], np.float32)  # fmt: skip
    found = detect([np.concatenate([row, np.zeros((9, 7), np.float32)])[np.newaxis]], head="yolov8")
    np.testing.assert_allclose(found.boxes, [[8, 8, 12, 12]])
    end = np.array([[[0, 0, 9, 9, 0.9, np.nan], [0, 0, 9, 9, 0.8, 1], [0, 0, 9, 9, 0.7, 99]]], np.float32)
    assert detect([end], head="yolo-end2end").classes.tolist() == [1]
    huge = np.full((1, 126, 8), 200, np.float32)
    assert len(detect([huge], head="yolox")) == 0


@pytest.mark.parametrize(
    ("outputs", "settings", "message"),
    [
        ([np.zeros((1, 100, 8))], {"head": "yolox"}, "strides .8, 16, 32. make 126 cells"),
        ([np.zeros((1, 126, 8))], {"head": "gfl"}, "4 times the number of bins"),
        ([np.zeros((1, 9, 4)), np.zeros((1, 9, 9))], {"head": "dense"}, "one of 3 values per candidate"),
        ([np.zeros((1, 9, 4)), np.zeros((1, 8, 3))], {"head": "dense"}, "9 boxes and 8 rows"),
        ([np.zeros((1, 9, 4)), np.zeros((1, 9, 3))], {"head": "ssd", "priors": LEVELS}, "9 boxes for 54"),
        ([np.zeros((1, 9, 4)), np.zeros((1, 9)), np.zeros((1, 9))], {"head": "postprocessed"}, "which of"),
        ([np.zeros((1, 9, 9))], {"head": "detr"}, "6 values per query .box, score, class. or 7"),
        ({"b": np.zeros((1, 9, 4))}, {"head": "dense", "score_outputs": ("s",)}, "no output 's'"),
    ],
)  # fmt: skip
def test_outputs_that_contradict_the_spec(outputs: object, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        detect(outputs, **settings)
    assert caught.value.reason == "OUTPUTS_DO_NOT_FIT"


def test_heads_on_a_grid_need_the_inputs_size() -> None:
    spec = OutputSpec(task="detection", head="yolox", num_classes=3)
    with pytest.raises(ModelError, match="needs the input spec"):
        decode([np.zeros((1, 126, 8))], spec, WHOLE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "ssd"}, "either prior_output .* or priors"),
        ({"head": "ssd", "priors": ({"grid": [1, 1], "stride": 8, "sizes": []},)}, "priors.0.: sizes"),
        ({"head": "ssd", "priors": ({"grid": [1, 1], "stride": 0, "sizes": [[1, 1]]},)}, "stride must be"),
        ({"head": "ssd", "priors": ({"grid": [1, "2"], "stride": 8, "sizes": [[1, 1]]},)}, "grid must be"),
        ({"head": "ssd", "priors": ({"sise": 1},)}, "unknown field 'sise'"),
        ({"head": "plugin"}, "belong together"),
        ({"head": "yolov8", "plugin": "x"}, "belong together"),
        ({"head": "yolox", "strides": (0,)}, "strides must be"),
        ({"head": "ssd", "prior_output": "p", "variances": (0.1,)}, "variances are two numbers"),
        ({"head": "gfl", "score_activation": "relu"}, "score_activation must be one of"),
        ({"head": "dense", "background": "middle"}, "background must be one of"),
    ],
)
def test_specs_that_cannot_be_meant(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OutputSpec(task="detection", num_classes=2, **settings)  # type: ignore[arg-type]


def test_a_spec_travels_with_its_new_fields_and_an_old_one_stays_as_it_was() -> None:
    spec = OutputSpec(
        task="detection", head="ssd", num_classes=3, priors=LEVELS, background="first", options={"a": 1}
    )
    again = OutputSpec.from_json(spec.to_json())
    assert again.to_json() == spec.to_json() and again.priors == spec.priors and hash(again) == hash(spec)
    old = OutputSpec(task="detection", head="yolov8", num_classes=2).to_json()
    assert "priors" not in old and "strides" not in old and len(old) == 12


def test_every_detection_head_of_the_spec_is_decoded() -> None:
    from typing import get_args

    from boardwright.model.output_spec import Head

    assert set(get_args(Head)) == {*HEADS, "logits", "probabilities", "plugin"}
