"""The figures of real networks over real images, through this package alone around ONNX Runtime."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from boardwright.model import (
    Classification,
    ClassificationMeter,
    DetectionMeter,
    Detections,
    InputSpec,
    OutputSpec,
    decode,
    preprocess,
)

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not (DATA / "models").is_dir(), reason="../shared/data (real models and images) is absent"
    ),
]


def open_session(name: str):  # type: ignore[no-untyped-def]
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(DATA / "models" / name, providers=["CPUExecutionProvider"])


def mobilenet_hits(limit: int | None) -> ClassificationMeter:
    from PIL import Image

    session = open_session("mobilenet_v1_0.75_224.onnx")
    graph_input = session.get_inputs()[0]
    spec = InputSpec(
        name=graph_input.name,
        height=224,
        width=224,
        scale=1 / 127.5,
        mean=(1, 1, 1),
        resize="center-crop",
        resize_shorter=256,
    )
    spec.check_against({graph_input.name: (graph_input.shape, graph_input.type)})
    head = OutputSpec(task="classification", head="logits", num_classes=1000)
    meter = ClassificationMeter(1000)
    with (DATA / "imagenet/labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "evaluation"]
    for row in itertools.islice(rows, limit):
        with Image.open(DATA / "imagenet/images" / row["file"]) as image:
            tensor, placement = preprocess(image, spec)
        found = decode(session.run(None, {spec.name: tensor}), head, placement)
        assert isinstance(found, Classification)
        meter.update(found.scores[np.newaxis], np.array([int(row["class_index"])]))
    return meter


def yolov5n_scores(limit: int | None) -> DetectionMeter:
    from PIL import Image

    session = open_session("yolov5n.onnx")
    spec = InputSpec(name="images", height=640, width=640, resize="letterbox")
    head = OutputSpec(task="detection", head="yolov5", num_classes=80).for_evaluation()
    meter = DetectionMeter()
    for path in itertools.islice(sorted((DATA / "coco/images/val2017").glob("*.jpg")), limit):
        with Image.open(path) as image:
            size = image.size
            tensor, placement = preprocess(image, spec)
        found = decode(session.run(None, {"images": tensor}), head, placement)
        assert isinstance(found, Detections)
        label = DATA / "coco/labels/val2017" / f"{path.stem}.txt"
        lines = label.read_text().split() if label.exists() else []
        truth = np.array(lines, float).reshape(-1, 5)
        centre, half = truth[:, 1:3] * size, truth[:, 3:5] * size / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        meter.update(found, boxes, truth[:, 0].astype(int))
    return meter


def test_mobilenet_on_a_part() -> None:
    meter = mobilenet_hits(60)
    assert meter.count == 60 and meter.top1 >= 75 and meter.top5 >= 85


def test_yolov5n_on_a_part() -> None:
    scores = yolov5n_scores(12).scores()
    assert scores.images == 12 and scores.map50 > 35 and 25 < scores.map50_95 < scores.map50


@pytest.mark.slow
def test_mobilenet_reaches_its_published_figure() -> None:
    assert mobilenet_hits(None).top1 == pytest.approx(84.0, abs=0.01)


@pytest.mark.slow
def test_yolov5n_reaches_its_published_figures() -> None:
    scores = yolov5n_scores(None).scores()
    assert scores.map50 == pytest.approx(51.95, abs=0.1)
    assert scores.map50_95 == pytest.approx(33.87, abs=0.1)
