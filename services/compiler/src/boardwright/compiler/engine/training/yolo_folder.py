"""A labelled dataset as a folder that Ultralytics' trainer reads: images, text labels, nothing downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit

if TYPE_CHECKING:
    from boardwright.compiler.engine.evaluate import Sample

_FEWEST_HELD_OUT = 4


@dataclass(frozen=True, slots=True)
class YoloFolder:
    """A dataset on disk: ``images/train``, ``labels/train`` and, where some are held out, ``…/val``.

    ``training`` and ``held_out`` count images, ``boxes`` labels of both.
    """

    path: Path
    training: int
    held_out: int
    boxes: int

    def images(self, part: str) -> str:
        """Return the folder of images of ``train`` or ``val``."""
        return str(self.path / "images" / part)


def write_yolo_folder(
    samples: Iterable[Sample], folder: Path, num_classes: int, *, held_out_share: float = 0.0
) -> YoloFolder:
    """Write labelled detection samples below ``folder``; every n-th one is held out for choosing an epoch.

    Images are written without loss. Samples without labels are left out: the detection loss would take them
    for empty scenes. A share that gives fewer than four held-out images holds out none.

    Raises:
        DatasetUnfit: LABELS_NEEDED without any labelled sample or box; LABELS_DO_NOT_FIT when a class is
            beyond ``num_classes``, or labels are of another task.
    """
    kept = written = boxes = 0
    held_out: list[int] = []
    every = round(1 / held_out_share) if held_out_share > 0 else 0
    for sample in samples:
        if sample.class_index is not None and sample.boxes is None:
            raise DatasetUnfit(
                "LABELS_DO_NOT_FIT",
                f"Sample {sample.name!r} is labelled with a class, and the model is a detector. Give a "
                "dataset labelled with boxes.",
            )
        if sample.boxes is None or sample.classes is None:
            continue
        _check_classes(sample, num_classes)
        part = "val" if every and written % every == every - 1 else "train"
        if part == "val":
            held_out.append(written)
        boxes += _write_sample(sample, folder, part, written)
        kept += part == "train"
        written += 1
    if not boxes:
        raise DatasetUnfit(
            "LABELS_NEEDED",
            "Training this detector needs images labelled with boxes, and the dataset has none. Give a "
            "labelled training dataset, or choose an objective that needs no labels.",
        )
    if len(held_out) < _FEWEST_HELD_OUT:
        kept += _take_back(held_out, folder)
        held_out = []
    return YoloFolder(folder, kept, len(held_out), boxes)


def _check_classes(sample: Sample, num_classes: int) -> None:
    classes = sample.classes
    if classes is not None and len(classes) and int(classes.max()) >= num_classes:
        raise DatasetUnfit(
            "LABELS_DO_NOT_FIT",
            f"Sample {sample.name!r} has class {int(classes.max())}, and the model knows 0 to "
            f"{num_classes - 1}. Correct the labels, or train a model with more classes first.",
        )


def _write_sample(sample: Sample, folder: Path, part: str, number: int) -> int:
    image = _as_image(sample.image)
    width, height = image.size
    images, labels = folder / "images" / part, folder / "labels" / part
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    image.save(images / f"{number:06d}.png", compress_level=1)
    lines = []
    for (left, top, right, bottom), kind in zip(sample.boxes, sample.classes, strict=True):  # type: ignore[arg-type]
        left, right = max(0.0, float(left)), min(float(width), float(right))
        top, bottom = max(0.0, float(top)), min(float(height), float(bottom))
        if right <= left or bottom <= top:
            continue
        center_x, center_y = (left + right) / 2 / width, (top + bottom) / 2 / height
        lines.append(
            f"{int(kind)} {center_x:.6f} {center_y:.6f} {(right - left) / width:.6f} "
            f"{(bottom - top) / height:.6f}\n"
        )
    (labels / f"{number:06d}.txt").write_text("".join(lines), encoding="ascii")
    return len(lines)


def _as_image(image: Any) -> Any:
    import numpy as np
    from PIL import Image

    found = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return found.convert("RGB")


def _take_back(held_out: list[int], folder: Path) -> int:
    for number in held_out:
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            name = f"{number:06d}.{suffix}"
            (folder / kind / "val" / name).rename(folder / kind / "train" / name)
    return len(held_out)
