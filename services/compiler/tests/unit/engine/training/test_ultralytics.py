"""Ultralytics' trainer trains the module it is given, pruned or not, alone or beside a teacher."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from boardwright.compiler.engine.checkpoint.ultralytics_file import load_ultralytics, prepare_ultralytics
from boardwright.compiler.engine.distill.checkpoints import (
    distill_ultralytics,
    same_graph,
)
from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.evaluate import Sample
from boardwright.compiler.engine.importing import import_checkpoint
from boardwright.compiler.engine.training.ultralytics import (
    UltralyticsOptions,
    save_ultralytics,
    train_ultralytics,
)
from boardwright.compiler.engine.training.yolo_folder import write_yolo_folder

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ultralytics") is None, reason="needs boardwright-compiler[ultralytics]"
    ),
    pytest.mark.filterwarnings("ignore"),  # torch's and Ultralytics' own
]
QUICK = UltralyticsOptions(image_size=64, epochs=1, batch_size=8, augment=False)


@pytest.fixture(scope="module")
def shapes() -> list[Sample]:
    """Rectangles and ellipses on noise, labelled."""
    return list(_shapes(16))


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Return ``build(width, name)``: a tiny random detector of two classes."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    return _build


def test_a_pruned_network_stays_pruned_and_reloads_from_its_file(build, shapes, tmp_path):
    module = build(0.125)
    whole = count(module)
    prune_hidden_channels(module)
    before = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    weights = torch.cat([value.detach().flatten().clone() for value in module.parameters()])
    assert count(module) < whole
    record = train_ultralytics(module, write_yolo_folder(shapes, tmp_path / "data", 2), QUICK)
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == before
    assert not torch.equal(weights, torch.cat([value.flatten() for value in module.parameters()]))
    assert (record.parameters, record.images, record.epochs, record.epoch) == (count(module), 16, 1, 1)
    assert np.isfinite(list(record.losses[0].values())).all()
    save_ultralytics(module, tmp_path / "pruned.pt", 64)
    assert str(tmp_path).encode() not in (tmp_path / "pruned.pt").read_bytes()
    again = load_ultralytics(tmp_path / "pruned.pt")
    assert count(again.model.model) == count(module)
    assert again.image_size == (64, 64)


def test_a_teacher_teaches_features_and_the_result_imports(build, shapes, tmp_path):
    for name, width in (("student", 0.0625), ("teacher", 0.125)):
        save_ultralytics(build(width), tmp_path / f"{name}.pt", 64)
    student = import_checkpoint(tmp_path / "student.pt")
    specs = student.input_spec, student.output_spec
    done = distill_ultralytics(
        tmp_path / "student.pt", tmp_path / "teacher.pt", shapes, *specs, QUICK, student.model
    )
    assert done.record.losses[0]["train/dis_loss"] > 0
    (tmp_path / "trained").write_bytes(done.checkpoint)
    again = import_checkpoint(tmp_path / "trained")
    assert (again.input_spec, again.output_spec) == specs
    assert same_graph(again.model, done.model)
    assert not same_graph(student.model, done.model)
    gray = replace(specs[0], color="GRAY", channels=1)
    with pytest.raises(EngineError, match="knows no mean, std or gray"):
        distill_ultralytics(
            tmp_path / "student.pt", None, shapes, gray, specs[1], QUICK, student.model
        )  # fmt: skip


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"yaml": "yolov8-p6.yaml"}, "DISTILL_HEADS_DIFFER"),
        ({"classes": 5}, "DISTILL_CLASSES_DIFFER"),
    ],
)
def test_a_teacher_whose_head_differs_is_refused(build, shapes, tmp_path, other, reason):
    folder = write_yolo_folder(shapes, tmp_path, 2)
    with pytest.raises(EngineError) as caught:
        train_ultralytics(build(0.0625), folder, QUICK, teacher=build(0.0625, **other))
    assert caught.value.reason == reason


def test_a_network_that_answers_with_nan_is_told(build, shapes, tmp_path):
    folder, module = write_yolo_folder(shapes, tmp_path, 2), build(0.0625)
    module.model[0].conv.weight.data[0] = torch.nan
    with pytest.raises(EngineError) as caught:
        train_ultralytics(module, folder, QUICK)
    assert caught.value.reason == "TRAINING_DIVERGED"


def test_held_out_images_choose_the_epoch(build, shapes, tmp_path):
    folder = write_yolo_folder(shapes, tmp_path, 2, held_out_share=0.25)
    assert (folder.training, folder.held_out) == (12, 4)
    record = train_ultralytics(build(0.0625), folder, replace(QUICK, epochs=2))
    assert len(record.scores) == 2
    assert record.scores[record.epoch - 1] == max(record.scores)


def test_the_folder_holds_boxes_as_ultralytics_reads_them(shapes, tmp_path):
    whole = Sample(
        "whole", np.zeros((40, 80, 3), np.uint8), boxes=np.array([[-4.0, 10, 40, 30]]), classes=np.array([1])
    )
    empty = replace(whole, name="empty", boxes=np.zeros((0, 4)), classes=np.zeros(0, np.intp))
    unlabelled = Sample("unlabelled", whole.image)
    folder = write_yolo_folder([whole, empty, unlabelled], tmp_path, 2)
    assert (folder.training, folder.boxes) == (2, 1)
    labels = sorted((tmp_path / "labels" / "train").iterdir())
    assert labels[0].read_text() == "1 0.250000 0.500000 0.500000 0.500000\n"
    assert labels[1].read_text() == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"boxes": None, "classes": None}, "LABELS_NEEDED"),
        ({"classes": np.array([7])}, "LABELS_DO_NOT_FIT"),
        ({"boxes": None, "classes": None, "class_index": 1}, "LABELS_DO_NOT_FIT"),
    ],
)
def test_labels_that_do_not_fit_are_told(tmp_path, changes, reason):
    sample = Sample(
        "a", np.zeros((8, 8, 3), np.uint8), boxes=np.array([[0.0, 0, 4, 4]]), classes=np.array([0])
    )
    with pytest.raises(DatasetUnfit) as caught:
        write_yolo_folder([replace(sample, **changes)], tmp_path, 2)
    assert caught.value.reason == reason


def count(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def prune_hidden_channels(module: torch.nn.Module) -> None:
    """Take half of the channels between the two convolutions of the first bottleneck, as a pruner does."""
    bottleneck = module.model[2].m[0]
    first, second = bottleneck.cv1, bottleneck.cv2
    kept = first.conv.out_channels // 2
    first.conv.weight = torch.nn.Parameter(first.conv.weight.detach()[:kept])
    first.conv.out_channels = kept
    first.bn = torch.nn.BatchNorm2d(kept)
    second.conv.weight = torch.nn.Parameter(second.conv.weight.detach()[:, :kept])
    second.conv.in_channels = kept


def _build(width: float, yaml: str = "yolov8.yaml", classes: int = 2) -> torch.nn.Module:
    ultralytics = prepare_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    torch.manual_seed(0)
    layout = yaml_model_load(yaml)
    layout["scales"] = {"n": [0.33, width, 256]}
    assert ultralytics
    return DetectionModel(layout, nc=classes, verbose=False)


def _shapes(number: int):
    rng = np.random.default_rng(0)
    for index in range(number):
        image = Image.fromarray(rng.integers(60, 120, (64, 64, 3), dtype=np.uint8))
        kind, left, top = int(rng.integers(2)), *(int(value) for value in rng.integers(2, 30, 2))
        corners = [left, top, left + 28, top + 24]
        draw = ImageDraw.Draw(image)
        (draw.rectangle if kind == 0 else draw.ellipse)(corners, fill=(220, 200, 40))
        yield Sample(f"{index}", image, boxes=np.array([corners], float), classes=np.array([kind]))
