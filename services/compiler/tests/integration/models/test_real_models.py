"""Real networks keep what they can: a classifier its answers, a detector its boxes, on real images."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boardwright.compiler.engine.evaluate import Evaluation, Sample, evaluate
from boardwright.compiler.engine.importing import Declared, ImportedModel, import_checkpoint
from boardwright.compiler.engine.quantize import QuantizedModel, quantize
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.model import InputSpec, preprocess

DATA = Path(__file__).parents[6] / "shared" / "data"

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(
        not DATA.exists(), reason="needs ../shared/data with real models and images beside the checkout"
    ),
]


def photographs(split: str, count: int) -> Iterator[Sample]:
    with (DATA / "imagenet" / "labels.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    for row in rows[:: len(rows) // count][:count]:
        image = Image.open(DATA / "imagenet" / "images" / row["file"])
        yield Sample(row["file"], image, class_index=int(row["class_index"]))


def scenes(split: str, count: int) -> Iterator[Sample]:
    for path in sorted((DATA / "coco" / "images" / split).iterdir())[:count]:
        image = Image.open(path)
        label = DATA / "coco" / "labels" / split / f"{path.stem}.txt"
        text = label.read_text().split() if label.exists() else []
        rows = np.array(text, np.float64).reshape(-1, 5)
        centre, half = rows[:, 1:3] * image.size, rows[:, 3:5] * image.size / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        yield Sample(path.name, image, boxes=boxes, classes=rows[:, 0].astype(int))


def judged(
    imported: ImportedModel,
    calibration: Iterator[Sample],
    evaluation: Iterator[Sample],
    profile: str = "x86-vnni",
) -> tuple[QuantizedModel, Evaluation]:
    spec = imported.input_spec
    feeds = ({spec.name: preprocess(sample.image, spec)[0]} for sample in calibration)
    small = quantize(imported.model, feeds, PROFILES[profile])
    found = evaluate(small.model, evaluation, spec, imported.output_spec, baseline=imported.model)
    return small, found


def test_mobilenet_keeps_its_answers():
    spec = InputSpec(
        height=224, width=224, scale=1 / 127.5, mean=(1, 1, 1), resize="center-crop", resize_shorter=256
    )
    imported = import_checkpoint(DATA / "models" / "mobilenet_v1_0.75_224.onnx", Declared(input_spec=spec))
    small, found = judged(imported, photographs("calibration", 50), photographs("evaluation", 100))
    assert small.corrected_biases == 28
    assert found.parity["top1_agreement"] >= 0.94
    assert small.model.ByteSize() < 0.3 * imported.model.ByteSize()
    assert not found.information.lost


def test_mobilenet_keeps_its_answers_under_one_scale_per_tensor():
    """44 of its channels never speak; weights that read them reach 224 beside 2.8: 37 % top-1, not 83."""
    spec = InputSpec(
        height=224, width=224, scale=1 / 127.5, mean=(1, 1, 1), resize="center-crop", resize_shorter=256
    )
    imported = import_checkpoint(DATA / "models" / "mobilenet_v1_0.75_224.onnx", Declared(input_spec=spec))
    samples = photographs("calibration", 50), photographs("evaluation", 100)
    small, found = judged(imported, *samples, profile="vx-delegate")
    assert small.exclusions == ()
    assert any("never change, whatever the input" in note for note in small.notes)
    assert found.parity["top1_difference"] >= -0.05
    assert found.parity["top1_agreement"] >= 0.85


def test_yolov5n_keeps_its_boxes_where_plain_int8_goes_blind():
    spec = InputSpec(height=640, width=640, resize="letterbox")
    imported = import_checkpoint(DATA / "models" / "yolov5n.onnx", Declared(input_spec=spec))
    small, found = judged(imported, scenes("train2017", 16), scenes("val2017", 12))
    assert {exclusion.rule for exclusion in small.exclusions} == {"join", "answer"}
    assert any("under one 8-bit scale" in exclusion.reason for exclusion in small.exclusions)
    (answers,) = (found for found in small.exclusions if found.rule == "answer")
    layers = [name for name in answers.nodes if name.endswith("Conv")]
    assert small.kernels["float_layers"] == len(layers) == 4  # of both coarse scales, and what feeds them
    assert found.parity["map50_against_baseline"] >= 0.85
    assert not found.information.lost


def test_yolov5n_without_protection_fails_by_its_lost_information():
    spec = InputSpec(height=640, width=640, resize="letterbox")
    imported = import_checkpoint(DATA / "models" / "yolov5n.onnx", Declared(input_spec=spec))
    feeds = [{"input": preprocess(sample.image, spec)[0]} for sample in scenes("train2017", 4)]
    blind = quantize(imported.model, feeds, PROFILES["x86-vnni"], protect_automatically=False)
    found = evaluate(blind.model, scenes("val2017", 4), spec, imported.output_spec, baseline=imported.model)
    assert found.accuracy["map50"] == 0
    assert "Nothing is detected" in found.information.lost
