"""Each recipe of a seed story does on something real and small what its header says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, ImageDraw

from boardwright.compiler.engine.export import export_network
from boardwright.compiler.recipes import read_shipped
from boardwright.model import InputSpec
from boardwright.samples import FoundSample
from boardwright.samples.labels import Box

from .conftest import DIGITS, fit, found_sample

GRAY = {"format": "onnx", "task": "classification", "input_spec": DIGITS.to_json()}
SIDE = 48
GRID = InputSpec(height=SIDE, width=SIDE, name="images", resize="letterbox", batch=1)
BOXES = {"task": "detection", "head": "yolov8", "num_classes": 2}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> tuple[Path, list[FoundSample]]:
    """A one-level detector of rectangles and ellipses, trained on 160 images, and samples."""
    drawn = [_draw(number) for number in range(240)]
    torch.manual_seed(0)
    network = _Grid()
    inputs = (
        torch.from_numpy(np.stack([np.asarray(image) for image, _ in drawn[:160]])).permute(0, 3, 1, 2) / 255
    )
    cells = SIDE // 8
    wanted = torch.zeros(160, 6, cells * cells)
    for number, (_, box) in enumerate(drawn[:160]):
        cell = int(box.center_y * cells) * cells + int(box.center_x * cells)
        measures = [box.center_x, box.center_y, box.width, box.height]
        wanted[number, :4, cell] = torch.tensor([value * SIDE for value in measures])
        wanted[number, 4 + box.class_id, cell] = 1

    def loss(out, chosen):
        aim = wanted[chosen]
        there = aim[:, 4:].amax(1, keepdim=True)
        boxes = (there * (out[:, :4] - aim[:, :4]).abs()).sum() / there.sum()
        chances = torch.nn.functional.binary_cross_entropy(out[:, 4:], aim[:, 4:], reduction="sum")
        return boxes / 4 + chances / len(chosen)

    fit(network, inputs, loss, 25, rate=5e-3)
    path = tmp_path_factory.mktemp("shapes") / "shapes.onnx"
    onnx.save(export_network(network, GRID), path)
    return path, [found_sample(f"{n:03d}", image, (box,)) for n, (image, box) in enumerate(drawn)]


def test_distilled_pruned_quantized_keeps_a_small_classifier(run_recipe, digits):
    checkpoint, samples = digits
    datasets = {"training": samples[:400], "calibration": samples[:100], "evaluation": samples[1000:1200]}
    recipe = read_shipped("distilled-pruned-quantized")
    ran = run_recipe(recipe, checkpoint, GRAY, datasets, "classification", epochs=2, batch_size=32)
    assert ran.steps["distill-distilled"].values["labelled_samples"] == 400
    assert _weights(ran.model("prune-distilled-pruned")) < 0.85 * _weights(ran.model("import"))
    assert _weights(ran.model("fine-tune-distilled-tuned")) == _weights(ran.model("prune-distilled-pruned"))
    assert _operators(ran.model("train-quantized-distilled-int8")) >= {"QuantizeLinear", "DequantizeLinear"}
    before, after = (ran.figure(f"evaluate-{name}", "top1") for name in ("baseline", "distilled-int8"))
    assert before > 0.9 and after > before - 0.05


def test_edge_classifier_learns_back_from_its_former_self_without_labels(run_recipe, digits):
    checkpoint, samples = digits
    unlabelled = [FoundSample(s.name, s.source, s.media_type, None) for s in samples[:300]]
    datasets = {"calibration": unlabelled, "evaluation": samples[1000:1200]}
    recipe = read_shipped("edge-classifier")
    ran = run_recipe(recipe, checkpoint, GRAY, datasets, "classification", epochs=3, batch_size=32)
    learnt = ran.steps["distill-edge"]
    assert learnt.values["dataset"] == "calibration"
    assert learnt.values["objective_after"] < learnt.values["objective_before"]
    assert any("unlabelled" in warning for warning in learnt.warnings)
    assert _weights(ran.model("prune-pruned")) < 0.7 * _weights(ran.model("import"))
    assert ran.figure("evaluate-edge-int8", "top1") > ran.figure("evaluate-baseline", "top1") - 0.05


def test_detector_int8_sees_and_says_what_it_left_out(run_recipe, shapes):
    checkpoint, samples = shapes
    told = {"format": "onnx", "task": "detection", "input_spec": GRID.to_json(), "output_spec": BOXES}
    datasets = {"calibration": samples[:32], "evaluation": samples[160:200]}
    recipe = read_shipped("detector-int8")
    ran = run_recipe(recipe, checkpoint, told, datasets, "detection", epochs=2, runs=2)
    assert ran.figure("evaluate-baseline", "map50") > 0.5
    assert ran.steps["quantize-detector-int8"].values["exclusions"]
    for variant in ("detector-int8", "detector-trained"):
        lost = ran.figure("evaluate-baseline", "map50_95") - ran.figure(f"evaluate-{variant}", "map50_95")
        assert lost < 0.06, variant


def test_int8_paradox_shows_both_kinds_and_diagnoses_them(run_recipe, shapes):
    checkpoint, samples = shapes
    told = {"format": "onnx", "task": "detection", "input_spec": GRID.to_json(), "output_spec": BOXES}
    datasets = {"calibration": samples[:16], "evaluation": samples[160:180]}
    ran = run_recipe(read_shipped("int8-paradox"), checkpoint, told, datasets, "detection", runs=2)
    assert "DynamicQuantizeLinear" in _operators(ran.model("quantize-dynamic-dynamic"))
    assert "DynamicQuantizeLinear" not in _operators(ran.model("quantize-static"))
    assert {"diagnose-dynamic", "diagnose-static"} <= set(ran.steps)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="needs boardwright-compiler[ultralytics]"
)
@pytest.mark.filterwarnings("ignore")  # torch's and Ultralytics' own
def test_yolo_lightweight_prunes_a_yolo_for_real_and_teaches_it(run_recipe, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    samples = shapes[1]
    checkpoint = _yolo(tmp_path)
    datasets = {"training": samples[:48], "calibration": samples[:16], "evaluation": samples[160:180]}
    recipe = read_shipped("yolo-lightweight")
    ran = run_recipe(
        recipe, checkpoint, {"format": "ultralytics"}, datasets, "detection", epochs=2, runs=2, batch_size=8,
        fail_if_information_lost=False,
    )  # fmt: skip
    pruned = ran.steps["prune-pruned"].values
    assert pruned["after"]["macs"] < 0.85 * pruned["before"]["macs"]
    kept = [_weights(ran.model(step)) for step in ("prune-pruned", "distill-lightweight")]
    assert kept[1] == pytest.approx(kept[0], rel=1e-3)  # but for constants that are stored once or twice
    learnt = ran.steps["distill-lightweight"]
    assert learnt.values["objective"] == "detection"
    # An untrained network loses nothing to speak of when it is pruned, so there may be nothing to learn back.
    assert learnt.values["objective_after"] <= learnt.values["objective_before"]
    assert "QuantizeLinear" in _operators(ran.model("quantize-lightweight-int8"))


def _weights(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def _operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


class _Grid(torch.nn.Module):
    """One box for each of 6x6 cells of 8 px: (N, 6, 36) with yolov8's head."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for given, made, stride in ((3, 12, 2), (12, 24, 2), (24, 32, 2), (32, 32, 1)):
            layers += [torch.nn.Conv2d(given, made, 3, stride, 1), torch.nn.SiLU()]
        self.body = torch.nn.Sequential(*layers)
        self.box = torch.nn.Conv2d(32, 4, 1)
        self.kind = torch.nn.Conv2d(32, 2, 1)
        row, column = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
        self.register_buffer("corners", torch.stack([column, row]).flatten(1) * 8.0)

    def forward(self, images):
        features = self.body(images)
        box = self.box(features).sigmoid().reshape(images.shape[0], 4, 36)
        kind = self.kind(features).sigmoid().reshape(images.shape[0], 2, 36)
        return torch.cat([self.corners + 8 * box[:, :2], SIDE * box[:, 2:], kind], 1)


def _draw(number: int) -> tuple[Image.Image, Box]:
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(40, 120, (SIDE, SIDE, 3), dtype=np.uint8))
    width, height = (int(value) for value in rng.integers(12, 26, 2))
    left, top = int(rng.integers(0, SIDE - width)), int(rng.integers(0, SIDE - height))
    kind = int(rng.integers(2))
    draw = ImageDraw.Draw(image)
    shape = draw.rectangle if kind == 0 else draw.ellipse
    shape([left, top, left + width, top + height], fill=(230, 210, 60))
    box = Box(kind, (left + width / 2) / SIDE, (top + height / 2) / SIDE, width / SIDE, height / SIDE)
    return image, box


def _yolo(folder: Path) -> Path:
    from boardwright.compiler.engine.checkpoint.ultralytics_file import prepare_ultralytics
    from boardwright.compiler.engine.training.ultralytics import save_ultralytics

    prepare_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    torch.manual_seed(0)
    layout = {**yaml_model_load("yolov8.yaml"), "scales": {"n": [0.33, 0.125, 256]}}
    path = folder / "yolo.pt"
    save_ultralytics(DetectionModel(layout, nc=2, verbose=False), path, 64)
    return path
