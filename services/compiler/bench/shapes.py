"""Detectors for the compression bench where no trained ones are at hand: generated images, a short training.

    python services/compiler/bench/shapes.py FOLDER [--train yolov8n|yolo11n|yolo26n|…] [--epochs N]

Writes FOLDER as a YOLO dataset: 700 images to learn from and 200 to judge by, 224 × 224, one to five of six
kinds of shapes in front of noise, always the same ones. `--train` trains an Ultralytics network on them from
random weights, into FOLDER/NAME.pt. Then:

    python services/compiler/bench/compression.py --checkpoint FOLDER/NAME.pt --dataset FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = 224
KINDS = ("disk", "block", "triangle", "cross", "ring", "frame")
SPLITS = {"train": 700, "val": 200}

Box = tuple[int, int, int, int]


def main() -> int:
    """Write the images, and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", metavar="NAME")
    parser.add_argument("--epochs", type=int, default=16)
    options = parser.parse_args()
    folder = options.folder.resolve()
    write_images(folder)
    if options.train:
        train(folder, options.train, options.epochs)
    return 0


def write_images(folder: Path) -> None:
    """Write both splits and `data.yaml`."""
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, rows = draw(rng)
            image.save(folder / "images" / split / f"{number:04}.png")
            (folder / "labels" / split / f"{number:04}.txt").write_text("\n".join(rows) + "\n")
    lines = [f"path: {folder}", "train: images/train", "val: images/val", f"names: [{', '.join(KINDS)}]"]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n")


def draw(rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """Return an image and its label's rows: class, centre x, centre y, width, height, relative to it."""
    coarse = rng.integers(0, 256, (rng.integers(3, 12), rng.integers(3, 12), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(float)
    noisy = smooth + rng.normal(0, rng.uniform(2, 18), (SIZE, SIZE, 3))
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    pen, rows, taken = ImageDraw.Draw(image), [], []
    for _ in range(rng.integers(1, 6)):
        width = int(rng.integers(14, 90))
        height = int(width * rng.uniform(0.7, 1.4))
        left, top = int(rng.integers(0, SIZE - width)), int(rng.integers(0, max(1, SIZE - height)))
        height = min(height, SIZE - top)
        box = (left, top, left + width, top + height)
        if any(left < b[2] and b[0] < box[2] and top < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        kind = int(rng.integers(0, len(KINDS)))
        draw_shape(pen, kind, box, tuple(int(value) for value in rng.integers(0, 256, 3)))
        centre = (left + width / 2) / SIZE, (top + height / 2) / SIZE
        rows.append(f"{kind} {centre[0]:.5f} {centre[1]:.5f} {width / SIZE:.5f} {height / SIZE:.5f}")
    return image, rows


def draw_shape(pen: ImageDraw.ImageDraw, kind: int, box: Box, colour: tuple[int, ...]) -> None:
    """Draw one of `KINDS` into `box` (right and bottom exclusive)."""
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1
    inside, line = (left, top, right, bottom), max(3, (box[2] - left) // 7)
    match KINDS[kind]:
        case "disk":
            pen.ellipse(inside, fill=colour)
        case "block":
            pen.rectangle(inside, fill=colour)
        case "triangle":
            tip = left + (box[2] - left) // 2
            pen.polygon([(tip, top), (left, bottom), (right, bottom)], fill=colour)
        case "cross":
            pen.line([(left, top), (right, bottom)], fill=colour, width=line)
            pen.line([(left, bottom), (right, top)], fill=colour, width=line)
        case "ring":
            pen.ellipse(inside, outline=colour, width=line)
        case _:
            pen.rectangle(inside, outline=colour, width=line)


def train(folder: Path, name: str, epochs: int) -> None:
    """Train an Ultralytics network from random weights into `folder`/`name`.pt."""
    from boardwright.compiler.engine.checkpoint.ultralytics_file import prepare_ultralytics

    ultralytics = prepare_ultralytics()
    with tempfile.TemporaryDirectory() as project:
        network = ultralytics.YOLO(f"{name}.yaml")
        network.train(
            data=str(folder / "data.yaml"), epochs=epochs, imgsz=SIZE, batch=16, workers=0, device="cpu",
            optimizer="AdamW", lr0=0.002, warmup_epochs=1, close_mosaic=5, seed=0, val=False, plots=False,
            project=project, name=name,
        )  # fmt: skip
        shutil.copyfile(Path(project) / name / "weights" / "last.pt", folder / f"{name}.pt")


if __name__ == "__main__":
    sys.exit(main())
