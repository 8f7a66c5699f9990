"""The step distill in its own process: a teacher of another format, and Ultralytics' own files."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, ImageDraw

from boardwright.compiler.engine.distill.checkpoints import same_graph
from boardwright.compiler.engine.evaluate import Sample, evaluate
from boardwright.compiler.engine.export import export_network
from boardwright.compiler.engine.importing import ImportedModel, import_checkpoint
from boardwright.compiler.steps.importing import read_declared
from boardwright.jobs.step_api import InputFile, StepError
from boardwright.model import InputSpec, OutputSpec
from boardwright.samples import FoundSample
from boardwright.samples.labels import Box

SPEC = {"height": 16, "width": 16, "resize": "stretch"}
STUDENT = """
import torch

def build_network(width=3, classes=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(width, classes),
    )
"""
YOLO = {
    "teacher": "big@1", "teacher_import": {"format": "ultralytics"}, "import": {"format": "ultralytics"},
    "epochs": 1, "batch_size": 6, "augment": False, "fail_if_information_lost": False,
}  # fmt: skip
needs_ultralytics = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="needs boardwright-compiler[ultralytics]"
)


@pytest.fixture
def colour_teacher(tmp_path: Path) -> Path:
    """A classifier that knows colours for certain, as ONNX."""
    layers = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3)]
    layers[2].weight.data, layers[2].bias.data = 20 * torch.eye(3), torch.zeros(3)
    path = tmp_path / "teacher.onnx"
    onnx.save(export_network(torch.nn.Sequential(*layers), InputSpec.from_json(SPEC)), path)
    return path


def test_a_state_dict_learns_from_an_onnx_teacher_and_goes_on_as_a_graph(
    tmp_path, run_here, seal, coloured, colour_teacher
):
    student = _student(tmp_path)
    training = seal(coloured(60, 1), "classification", tmp_path / "training", "training")
    parameters = {
        "teacher": "colours@1", "teacher_import": {"format": "onnx", "input_spec": {**SPEC}},
        "import": {"format": "torch-state-dict"}, "epochs": 12, "learning_rate": 0.03, "alpha": 0.5,
    }  # fmt: skip
    done = run_here("compile/distill", parameters, {**student, **training, "teacher": colour_teacher})
    assert (done.values["objective"], done.values["dataset"]) == ("soft-labels", "training")
    assert done.values["labelled_samples"] == 60
    assert done.values["objective_after"] < 0.5 * done.values["objective_before"]
    assert onnx.load(done.outputs["checkpoint"].path) == onnx.load(done.outputs["model.onnx"].path)
    record = json.loads(done.outputs["distillation.json"].path.read_text())
    assert (record["teacher"], record["matching"]) == ("colours@1", "soft-labels")
    samples = [
        Sample(sample.name, Image.open(io.BytesIO(sample.source)), class_index=sample.label)
        for sample in coloured(30, 2)
    ]
    specs = InputSpec.from_json(SPEC), OutputSpec.from_json(student["output-spec.json"].read_bytes())
    judged = evaluate(onnx.load(done.outputs["model.onnx"].path), samples, *specs)
    assert judged.accuracy["top1"] > 0.9


def test_a_teacher_of_other_classes_and_a_broken_one_are_told_as_the_teacher(
    tmp_path, run_here, seal, coloured
):
    student = _student(tmp_path)
    calibration = seal(coloured(4, 1), "classification", tmp_path / "calibration", "calibration")
    module, weights = _weights(tmp_path, "other", classes=4)
    told = {"format": "torch-state-dict", "input_spec": SPEC, "builder_arguments": {"classes": 4}}
    inputs = {**student, **calibration, "teacher": weights, "teacher-module": module}
    with pytest.raises(StepError, match="knows 3 classes and the teacher 4") as caught:
        run_here("compile/distill", {"import": {}, "teacher": "other@2", "teacher_import": told}, inputs)
    assert caught.value.reason == "DISTILL_CLASSES_DIFFER"
    weights.write_bytes(b"no checkpoint")
    with pytest.raises(StepError, match="The teacher other@2: ") as caught:
        run_here("compile/distill", {"import": {}, "teacher": "other@2", "teacher_import": told}, inputs)
    assert caught.value.reason == "CHECKPOINT_UNREADABLE"


@pytest.fixture
def yolos(tmp_path: Path, seal, monkeypatch) -> dict[str, Path]:
    """A small Ultralytics student, imported, a larger teacher, and labelled shapes, as a step's inputs."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    for name, width in (("student", 0.0625), ("teacher", 0.125)):
        _yolo(tmp_path / name, width)
    inputs = _written(import_checkpoint(tmp_path / "student"), tmp_path)
    inputs |= {"checkpoint": tmp_path / "student", "teacher": tmp_path / "teacher"}
    return inputs | seal(list(_shapes(12)), "detection", tmp_path / "training", "training")


@needs_ultralytics
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's and Ultralytics' own, while the checkpoints are made
async def test_ultralytics_files_are_trained_by_their_own_trainer(run_step, yolos):
    done = await run_step("compile/distill", YOLO, yolos)
    assert done.values["objective"] == "ultralytics"
    assert "train/dis_loss" in done.values["losses"][0]
    again = import_checkpoint(done.outputs["checkpoint"].path)
    assert same_graph(again.model, onnx.load(done.outputs["model.onnx"].path))


@needs_ultralytics
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_fine_tuning_trains_a_file_on_its_boxes_until_the_graph_has_left_it_behind(run_here, yolos):
    done = run_here("compile/fine-tune", {**YOLO, "objective": "labels"}, yolos)
    assert (done.values["trainer"], done.values["objective"]) == ("ultralytics", "labels")
    assert "train/dis_loss" not in done.values["losses"][0]
    again = import_checkpoint(done.outputs["checkpoint"].path)
    assert same_graph(again.model, onnx.load(done.outputs["model.onnx"].path))
    changed = onnx.load(yolos["model.onnx"])
    weight = next(tensor for tensor in changed.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.5, weight.name))
    onnx.save(changed, yolos["model.onnx"])
    done = run_here("compile/distill", {**YOLO, "steps": 1}, yolos)
    assert done.values["objective"] == "detection"
    assert any("changed the graph since this checkpoint" in warning for warning in done.warnings)
    with pytest.raises(StepError, match="changed the graph since this checkpoint"):
        run_here("compile/fine-tune", {**YOLO, "objective": "labels"}, yolos)


def _student(folder: Path) -> dict[str, Path]:
    module, weights = _weights(folder, "student")
    told = {"format": "torch-state-dict", "input_spec": SPEC}
    given = (InputFile(path, "", "") for path in (weights, module))
    path, declared = read_declared(told, *given, folder, "given")
    return _written(import_checkpoint(path, declared), folder) | {"checkpoint": weights, "module": module}


def _written(imported: ImportedModel, folder: Path) -> dict[str, Path]:
    paths = {name: folder / name for name in ("model.onnx", "input-spec.json", "output-spec.json")}
    onnx.save(imported.model, paths["model.onnx"])
    paths["input-spec.json"].write_text(json.dumps(imported.input_spec.to_json()))
    paths["output-spec.json"].write_text(json.dumps(imported.output_spec.to_json()))
    return paths


def _weights(folder: Path, name: str, classes: int = 3) -> tuple[Path, Path]:
    module, weights = folder / f"{name}-module", folder / f"{name}-weights"
    module.write_text(STUDENT)
    scope: dict[str, object] = {}
    exec(STUDENT, scope)
    torch.save(scope["build_network"](classes=classes).state_dict(), weights)
    return module, weights


def _yolo(path: Path, width: float) -> None:
    from boardwright.compiler.engine.checkpoint.ultralytics_file import prepare_ultralytics
    from boardwright.compiler.engine.training.ultralytics import save_ultralytics

    prepare_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    torch.manual_seed(0)
    layout = {**yaml_model_load("yolov8.yaml"), "scales": {"n": [0.33, width, 256]}}
    save_ultralytics(DetectionModel(layout, nc=2, verbose=False), path, 64)


def _shapes(count: int):
    rng = np.random.default_rng(0)
    for number in range(count):
        image = Image.fromarray(rng.integers(60, 120, (64, 64, 3), dtype=np.uint8))
        kind, left, top = int(rng.integers(2)), *(int(value) for value in rng.integers(2, 30, 2))
        draw = ImageDraw.Draw(image)
        (draw.rectangle if kind == 0 else draw.ellipse)([left, top, left + 28, top + 24], fill=(220, 200, 40))
        stream = io.BytesIO()
        image.save(stream, "png")
        box = Box(kind, (left + 14) / 64, (top + 12) / 64, 28 / 64, 24 / 64)
        yield FoundSample(f"{number:03d}.png", stream.getvalue(), "image/png", (box,))
