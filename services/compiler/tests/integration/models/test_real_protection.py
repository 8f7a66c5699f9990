"""On real networks: the cause of a collapse, sensitivity near a sweep's, and what per-tensor costs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.compiler.engine.observe import CalibrationRecord, observe
from boardwright.compiler.engine.protect import excluded_names, find_cause, measure_sensitivity, protect
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.protect.weights import find_spread_weights
from boardwright.compiler.engine.quantize import insert_quantization
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.compiler.engine.sqnr import noise_ratio
from boardwright.model import InputSpec, preprocess

DATA = Path(__file__).parents[6] / "shared" / "data"

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(
        not DATA.exists(), reason="needs ../shared/data with real models and images beside the checkout"
    ),
]
PHOTOGRAPHS = InputSpec(
    height=224, width=224, scale=1 / 127.5, mean=(1, 1, 1), resize="center-crop", resize_shorter=256
)
SCENES = InputSpec(height=640, width=640, resize="letterbox")


def feeds(paths: Iterator[Path], spec: InputSpec) -> list[dict[str, Any]]:
    return [{spec.name: preprocess(Image.open(path), spec)[0]} for path in paths]


def scenes(count: int) -> list[dict[str, Any]]:
    return feeds(iter(sorted((DATA / "coco" / "images" / "train2017").iterdir())[:count]), SCENES)


@pytest.fixture
def classifier() -> tuple[onnx.ModelProto, CalibrationRecord, list[dict[str, Any]]]:
    """MobileNetV1 prepared, its ranges, and photographs."""
    with (DATA / "imagenet" / "labels.csv").open() as stream:
        names = [row["file"] for row in csv.DictReader(stream) if row["split"] == "calibration"][::40]
    found = feeds((DATA / "imagenet" / "images" / name for name in names), PHOTOGRAPHS)
    path = DATA / "models" / "mobilenet_v1_0.75_224.onnx"
    prepared = prepare_graph(import_checkpoint(path, Declared(input_spec=PHOTOGRAPHS)).model)
    return prepared, observe(prepared, found), found


def test_the_cause_of_yolov5ns_collapse_is_its_concat_of_boxes_and_scores():
    imported = import_checkpoint(DATA / "models" / "yolov5n.onnx", Declared(input_spec=SCENES))
    cause = find_cause(imported.model, scenes(4))
    assert cause.collapsed
    assert cause.node.startswith("/model.24/Concat")
    assert "joins tensors whose magnitudes differ" in cause.sentence
    assert cause.plain_db < 1
    assert cause.protected_db > 6


def test_sensitivity_ranks_mobilenets_layers_nearly_as_a_sweep_does(classifier):
    prepared, record, photographs = classifier
    subject = Subject(prepared, record.ranges)
    found = measure_sensitivity(subject, photographs[:4])
    everything = {node.name for node in prepared.graph.node}
    session = open_session(prepared)
    wanted = [session.run(None, feed) for feed in photographs[:2]]
    sweep = []
    for unit in found.units:
        alone = open_session(
            insert_quantization(prepared, record, PROFILES["x86-vnni"], everything - {unit.node})
        )
        ratios = [
            noise_ratio(alone.run(None, feed), exact)
            for feed, exact in zip(photographs[:2], wanted, strict=True)
        ]
        sweep.append(float(np.mean(ratios)))
    ranks = [np.argsort(np.argsort(values)) for values in ([-unit.sqnr_db for unit in found.units], sweep)]
    assert np.corrcoef(*ranks)[0, 1] > 0.6


def test_one_scale_per_tensor_takes_mobilenets_depthwise_layers_once_constant_channels_are_dropped(
    classifier,
):
    prepared, record, _ = classifier
    assert protect(prepared, record.ranges, PROFILES["x86-vnni"]) == ()
    scheme = PROFILES["vx-delegate"]
    names = excluded_names(protect(prepared, record.ranges, scheme))
    assert not any(name.startswith("conv_pw") for name in names)
    spread = find_spread_weights(Subject(prepared, record.ranges, scheme), set())
    undropped = {name for exclusion, _ in spread for name in exclusion.nodes}
    assert {"conv_dw_1", "conv_dw_2"} <= undropped
    assert names < undropped
