"""What a teacher is worth: students with and without one, on the same samples, for as many steps.

    python services/compiler/bench/distillation.py [--seeds N] [--json FILE] [digits|shapes]...

``digits``: classifiers of scikit-learn's 8x8 digits. The student has 50 labelled digits; the teacher saw
1000, and the student sees the same 950 others without labels. ``shapes``: Ultralytics detectors at 64 px on
generated images, trained by Ultralytics' own trainer with and without ``distill_model``. Figures are means
over the seeds, with the least and the largest; nothing is chosen on the test samples.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from boardwright.compiler.engine.distill.graphs import distill_graph
from boardwright.compiler.engine.distill.options import DistillOptions
from boardwright.compiler.engine.distill.teacher import Teacher
from boardwright.compiler.engine.evaluate import Sample, evaluate
from boardwright.compiler.engine.export import export_network
from boardwright.compiler.engine.training.data import SampleList
from boardwright.compiler.engine.training.options import DataOptions, TrainOptions
from boardwright.model import InputSpec, OutputSpec

DIGITS = InputSpec(height=8, width=8, color="GRAY", channels=1, scale=1 / 255, batch=1)
LOGITS = OutputSpec(task="classification", head="logits", num_classes=10)
LABELLED, KNOWN = 50, 1000
STEPS = 600
SIDE = 64

Figures = dict[str, list[float]]


def digits(seed: int) -> dict[str, float]:
    """Top-1 on the 797 digits that nobody was trained on."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    images = (found.images[order] * 255 / 16).astype(np.uint8)
    labels = found.target[order]

    def samples(start: int, stop: int, labelled: bool = True) -> list[Sample]:
        return [
            Sample(f"{n:04d}", images[n], class_index=int(labels[n]) if labelled else None)
            for n in range(start, stop)
        ]

    def top1(model: Any) -> float:
        return evaluate(model, samples(KNOWN, len(labels)), DIGITS, LOGITS).accuracy["top1"] * 100

    def learn(model: Any, given: list[Sample], options: DistillOptions) -> Any:
        training = TrainOptions(epochs=10_000, steps=STEPS, learning_rate=3e-3, seed=seed)
        teaching = Teacher(teacher, DIGITS, LOGITS)
        data = DataOptions(batch_size=32)
        return distill_graph(
            model, DIGITS, LOGITS, teaching, SampleList(given), options, training, data
        ).model

    few, some, all_labelled = samples(0, LABELLED), samples(0, KNOWN, False), samples(0, KNOWN)
    fresh = export_network(_classifier(4, seed), DIGITS)
    teacher = export_network(_classifier(24, seed), DIGITS)
    teacher = learn(teacher, all_labelled, DistillOptions(alpha=0.0))  # labels alone
    start = learn(fresh, few, DistillOptions(alpha=0.0))
    return {
        "teacher (1000 labels)": top1(teacher),
        "student, 50 labels": top1(start),
        "as long again, 50 labels": top1(learn(start, few, DistillOptions(alpha=0.0))),
        "50 labels and teacher": top1(learn(start, few, DistillOptions())),
        "1000 unlabelled, soft labels": top1(learn(start, some, DistillOptions())),
        "1000 unlabelled, features": top1(learn(start, some, DistillOptions(objective="features"))),
        "1000 unlabelled, attention": top1(
            learn(start, some, DistillOptions(objective="features", feature_loss="attention"))
        ),
        "fresh student, 1000 labels": top1(learn(fresh, all_labelled, DistillOptions(alpha=0.0))),
        "fresh student, 1000 labels and teacher": top1(learn(fresh, all_labelled, DistillOptions())),
    }


def shapes(seed: int) -> dict[str, float]:
    """mAP50-95 on 100 images that nobody was trained on."""
    from boardwright.compiler.engine.checkpoint.ultralytics_file import prepare_ultralytics
    from boardwright.compiler.engine.distill.checkpoints import distill_ultralytics
    from boardwright.compiler.engine.importing import import_checkpoint
    from boardwright.compiler.engine.training.ultralytics import UltralyticsOptions, save_ultralytics

    prepare_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    def options(epochs: int) -> UltralyticsOptions:
        return UltralyticsOptions(SIDE, epochs, 16, learning_rate=2e-3, optimizer="adamw", seed=seed)

    def mean_precision(imported: Any, model: Any) -> float:
        found = evaluate(model, test, imported.input_spec, imported.output_spec)
        return found.accuracy["map50_95"] * 100

    test = _shapes(100, 1000 + seed)
    known, few = _shapes(128, seed), _shapes(64, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, width in (("teacher", 0.25), ("student", 0.125)):
            torch.manual_seed(seed)
            layout = {**yaml_model_load("yolov8.yaml"), "scales": {"n": [0.33, width, 256]}}
            save_ultralytics(DetectionModel(layout, nc=2, verbose=False), folder / f"{part}.pt", SIDE)
        imported = import_checkpoint(folder / "student.pt")
        specs = imported.input_spec, imported.output_spec

        def train(part: str, teacher: Path | None, samples: list[Sample], epochs: int) -> Any:
            return distill_ultralytics(
                folder / f"{part}.pt", teacher, samples, *specs, options(epochs), imported.model
            )

        taught = train("teacher", None, known, 20)
        (folder / "taught.pt").write_bytes(taught.checkpoint)
        return {
            "teacher (128 images)": mean_precision(imported, taught.model),
            "student, 64 images": mean_precision(imported, train("student", None, few, 45).model),
            "student, 64 images and teacher": mean_precision(
                imported, train("student", folder / "taught.pt", few, 45).model
            ),
        }


def _classifier(width: int, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(width, 2 * width, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(8 * width, 10),
    )  # fmt: skip


def _shapes(count: int, seed: int) -> list[Sample]:
    """Rectangles and ellipses of any size and colour on noise."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        image = Image.fromarray(rng.integers(40, 150, (SIDE, SIDE, 3), dtype=np.uint8))
        draw, boxes, kinds = ImageDraw.Draw(image), [], []
        for _ in range(int(rng.integers(1, 4))):
            width, height = (int(value) for value in rng.integers(SIDE // 6, SIDE // 2, 2))
            left, top = int(rng.integers(0, SIDE - width)), int(rng.integers(0, SIDE - height))
            kind = int(rng.integers(2))
            color = tuple(int(value) for value in rng.integers(120, 256, 3))
            corners = [left, top, left + width, top + height]
            (draw.rectangle if kind == 0 else draw.ellipse)(corners, fill=color)
            boxes.append(corners)
            kinds.append(kind)
        found.append(Sample(f"{number:03d}", image, boxes=np.array(boxes, float), classes=np.array(kinds)))
    return found


def main() -> None:
    """Run the cases asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, Callable[[int], dict[str, float]]] = {"digits": digits, "shapes": shapes}
    written: dict[str, Any] = {"machine": platform.machine(), "seeds": arguments.seeds}
    for name in arguments.cases or known:
        started = time.process_time()
        figures: Figures = {}
        for seed in range(arguments.seeds):
            found = known[name](seed)
            sys.stderr.write(f"{name}, seed {seed}: {json.dumps(found)}\n")
            for what, figure in found.items():
                figures.setdefault(what, []).append(figure)
        spent = time.process_time() - started
        sys.stdout.write(f"\n{name}: {arguments.seeds} seeds, {spent:.0f} CPU-s\n")
        for what, values in figures.items():
            mean, low, high = statistics.mean(values), min(values), max(values)
            sys.stdout.write(f"  {what:42} {mean:6.2f}  ({low:.2f} to {high:.2f})\n")
        written[name] = figures
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=2))


if __name__ == "__main__":
    main()
