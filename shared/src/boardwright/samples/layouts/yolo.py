"""YOLO datasets: images with one text file of boxes each, with or without ``data.yaml``.

A label's place follows from the image's: the last ``images`` in the path becomes ``labels``, the suffix
``.txt``; where there is no ``images`` folder, the label lies beside the image. An image without a label
file is a background
image: labelled, with no box.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardwright.samples.errors import SampleError
from boardwright.samples.found import BadSample, FoundSample, SampleSource
from boardwright.samples.labels import Box
from boardwright.samples.layouts.files import (
    choose_split,
    is_present,
    media_type,
    read_lines,
    relative_name,
    walk_images,
)

_DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True, slots=True)
class _Found:
    root: Path
    parts: dict[str, list[Path]]
    classes: tuple[str, ...]


def recognise(root: Path) -> bool:
    """Whether there is a ``data.yaml``, or images with labels."""
    if _description(root) is not None:
        return True
    images = root / "images"
    if images.is_dir() and (root / "labels").is_dir():
        return True
    first = next(walk_images(root), None)
    return first is not None and "images" in first.parts and label_file(first).parent.is_dir()


def read(root: Path, split: str) -> SampleSource:
    """Open a YOLO dataset; see ``read_layout``."""
    description = root if root.is_file() else _description(root)
    found = _from_description(description) if description else _from_folders(root)
    splits = tuple(found.parts) if "" not in found.parts else ()
    chosen = choose_split(split, splits) or tuple(found.parts)
    places = [place for name in chosen for place in found.parts[name]]
    every = [place for part in found.parts.values() for place in part]
    labelled = any(is_present(label_file(path)) for place in every for path in _images(place))
    classes = found.classes or (_numbered_classes(every) if labelled else ())

    def samples() -> Iterator[FoundSample | BadSample]:
        seen: set[Path] = set()
        for place in places:
            for path in _images(place):
                if path not in seen:
                    seen.add(path)
                    yield _sample(path, found.root, classes, labelled)

    return SampleSource("yolo", "detection" if labelled else "", classes, splits, samples)


def label_file(image: Path) -> Path:
    """Where the boxes of an image are."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _description(root: Path) -> Path | None:
    return next((root / name for name in _DESCRIPTIONS if (root / name).is_file()), None)


def _from_folders(root: Path) -> _Found:
    images = root / "images" if (root / "images").is_dir() else root
    folders = sorted(path for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    parts = {folder.name: [folder] for folder in folders} or {"": [images]}
    listing = root / "classes.txt"
    classes: tuple[str, ...] = ()
    if listing.is_file():
        classes = tuple(read_lines(listing))
    return _Found(root, parts, classes)


def _from_description(path: Path) -> _Found:
    import yaml

    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # a date like 2026-02-31 is a ValueError
        raise SampleError("LAYOUT_INVALID", f"{path}: not YAML: {error}") from error
    except RecursionError as error:
        raise SampleError("LAYOUT_INVALID", f"{path}: nested too deeply") from error
    if not isinstance(document, dict):
        raise SampleError("LAYOUT_INVALID", f"{path}: expected keys such as train, val and names")
    root = path.parent
    if isinstance(document.get("path"), str):
        # Ultralytics resolves `path` against its own datasets folder; beside the file is where people keep
        # it.
        named = Path(document["path"])
        root = next((p for p in (root / named, root / named.name) if p.is_dir()), root)
    parts: dict[str, list[Path]] = {}
    for name in ("train", "val", "test"):
        value = document.get(name)
        entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        places = [_place(path, root, entry, name) for entry in entries]
        if places:
            parts[name] = places
    if not parts:
        raise SampleError("LAYOUT_INVALID", f"{path}: none of train, val and test names images")
    return _Found(root.resolve(), parts, _names(path, document))


def _place(description: Path, root: Path, entry: Any, split: str) -> Path:
    # Roboflow writes "../train/images" for a folder that lies beside data.yaml.
    candidates = [root / str(entry), root / str(entry).removeprefix("../")]
    for candidate in candidates:
        if os.path.exists(candidate):  # Path.exists raises where the name is too long
            return candidate.resolve()
    raise SampleError("LAYOUT_INVALID", f"{description}: {split}: {entry} does not exist below {root}")


def _names(path: Path, document: dict[Any, Any]) -> tuple[str, ...]:
    names = document.get("names", [])
    if isinstance(names, dict):
        try:
            ordered = {int(key): _name(path, value) for key, value in names.items()}
        except (TypeError, ValueError, OverflowError) as error:
            raise SampleError("LAYOUT_INVALID", f"{path}: names: a key is no number: {error}") from error
        if sorted(ordered) != list(range(len(ordered))):
            raise SampleError("LAYOUT_INVALID", f"{path}: names: the keys must be 0 to {len(ordered) - 1}")
        return tuple(ordered[index] for index in range(len(ordered)))
    if not isinstance(names, list):
        raise SampleError("LAYOUT_INVALID", f"{path}: names must be a list or a mapping from index to name")
    return tuple(_name(path, name) for name in names)


def _name(path: Path, name: object) -> str:
    """A class's name; lists of lists could be written shortly and be long as text."""
    if isinstance(name, (list, dict)):
        raise SampleError("LAYOUT_INVALID", f"{path}: names: a name is a word or a number")
    return str(name)


def _images(place: Path) -> Iterator[Path]:
    """The images of a folder, or of a text file with one path per line."""
    if place.is_dir():
        yield from walk_images(place)
        return
    for line in read_lines(place):
        yield place.parent / line


def _numbered_classes(places: list[Path]) -> tuple[str, ...]:
    highest = -1
    for place in places:
        for image in _images(place):
            label = label_file(image)
            if is_present(label):
                for line in label.read_text("utf-8", errors="replace").splitlines():
                    first = line.partition(" ")[0]
                    if first.isascii() and first.isdigit() and len(first) < 6:
                        highest = max(highest, int(first))
    return tuple(str(index) for index in range(highest + 1))


def _sample(path: Path, root: Path, classes: tuple[str, ...], labelled: bool) -> FoundSample | BadSample:
    try:
        name = relative_name(path.resolve(), root.resolve())
    except ValueError:
        return BadSample(str(path), str(path), 0, "the image lies outside of the dataset's folder")
    if not is_present(path):
        return BadSample(name, str(path), 0, "the image is missing")
    if not labelled:
        return FoundSample(name, path, media_type(path), None)
    label = label_file(path)
    boxes: list[Box] = []
    if label.is_file():
        try:
            lines = label.read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            return BadSample(name, str(label), 1, f"not text in UTF-8: {error.reason}")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            box = _box(line.split(), classes)
            if isinstance(box, str):
                return BadSample(name, str(label), number, box)
            boxes.append(box)
    return FoundSample(name, path, media_type(path), tuple(boxes))


def _box(values: list[str], classes: tuple[str, ...]) -> Box | str:
    """The box of one line, or what is wrong with it."""
    if len(values) > 5 and len(values) % 2 == 1:
        return f"{len(values)} values are a polygon; detection labels have five: class x y width height"
    if len(values) != 5:
        return f"{len(values)} values instead of five: class x y width height"
    try:
        class_id, numbers = int(float(values[0])), [float(value) for value in values[1:]]
    except (ValueError, OverflowError):
        return f"not a number among {' '.join(values)!r}"
    if float(values[0]) != class_id:
        return f"class {values[0]} is no whole number"
    if class_id >= len(classes):
        return f"class {class_id} is beyond the {len(classes)} known classes (0 to {len(classes) - 1})"
    x, y, width, height = numbers
    box = Box(class_id, x, y, width, height)
    return box.problem() or box
