"""Image folders: one folder per class, or images alone (unlabelled); splits may lie above the classes."""

import os
from collections.abc import Iterator
from pathlib import Path

from boardwright.samples.errors import SampleError
from boardwright.samples.found import BadSample, FoundSample, SampleSource
from boardwright.samples.layouts.files import (
    choose_split,
    is_image,
    is_split_name,
    leads_out,
    media_type,
    relative_name,
    walk_images,
)


def recognise(root: Path) -> bool:
    """Whether there is any image below the folder."""
    return next(walk_images(root), None) is not None


def read(root: Path, split: str) -> SampleSource:
    """Open an image folder; see ``read_layout``."""
    if not root.is_dir():
        raise SampleError("LAYOUT_INVALID", f"{root} is not a folder")
    splits = tuple(name for name in _folders(root) if is_split_name(name))
    if splits and len(splits) < len(_folders(root)):
        splits = ()  # a class may be called "test": splits count only where there is nothing else
    parts = [root / name for name in choose_split(split, splits)] or [root]
    classes = tuple(sorted({name for part in parts for name in _folders(part) if recognise(part / name)}))

    def samples() -> Iterator[FoundSample | BadSample]:
        for part in parts:
            yield from _samples(part, root, classes)

    return SampleSource("folder", "classification" if classes else "", classes, splits, samples)


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
        )


def _samples(part: Path, root: Path, classes: tuple[str, ...]) -> Iterator[FoundSample | BadSample]:
    for name in sorted(os.listdir(part)):
        path = part / name
        if is_image(name) and path.is_file():
            sample = relative_name(path, root)
            if classes:
                reason = "the image lies beside the class folders: move it into one of them"
                yield BadSample(sample, sample, 0, reason)
            else:
                yield _sample(path, root, None)
    for index, name in enumerate(classes):
        for path in walk_images(part / name):
            yield _sample(path, root, index)


def _sample(path: Path, root: Path, label: int | None) -> FoundSample | BadSample:
    """The image, or, where a link would take a stranger's file along, why not."""
    name = relative_name(path, root)
    if leads_out(path, root):
        return BadSample(
            name, name, 0, "the link leads out of the dataset's folder: put the image itself there"
        )
    return FoundSample(name, path, media_type(path), label)
