"""COCO JSON: one document with images, annotations and categories."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from boardwright.content.canonical import read_json
from boardwright.samples.errors import SampleError
from boardwright.samples.found import BadSample, FoundSample, SampleSource
from boardwright.samples.labels import Box
from boardwright.samples.layouts.files import choose_split, inside, is_present, media_type, relative_name

_LARGEST = 1e9


def recognise(root: Path) -> bool:
    """Whether the folder (or its ``annotations``) holds a COCO JSON."""
    return bool(_documents(root))


def read(root: Path, split: str) -> SampleSource:
    """Open a COCO dataset; see ``read_layout``.

    With several documents, ``split`` picks one by its name's end.
    """
    splits: tuple[str, ...] = ()
    if root.is_file():
        document, base = root, _base(root)
    else:
        documents = _documents(root)
        splits = tuple(documents)
        chosen = choose_split(split, splits)
        if not chosen:
            raise SampleError(
                "LAYOUT_INVALID", f"{root} holds no COCO JSON (images, annotations, categories)"
            )
        if len(chosen) > 1:
            raise SampleError(
                "SPLIT_UNKNOWN", f"{root} holds several documents; choose a split: {', '.join(chosen)}"
            )
        document, base = documents[chosen[0]], root
    content = _load(document)
    categories = sorted(content["categories"], key=lambda entry: entry["id"])
    class_ids = {entry["id"]: index for index, entry in enumerate(categories)}
    classes = tuple(str(entry["name"]) for entry in categories)
    by_image: defaultdict[Any, list[tuple[int, Any]]] = defaultdict(list)
    for number, annotation in enumerate(content.get("annotations", [])):
        image = annotation.get("image_id") if isinstance(annotation, dict) else None
        by_image[_identity(image)].append((number, annotation))
    folder = _image_folder(document, content["images"])

    def samples() -> Iterator[FoundSample | BadSample]:
        seen: set[str] = set()
        for number, entry in enumerate(content["images"]):
            sample = _sample(document, folder, base, number, entry, by_image, class_ids)
            if sample.name in seen:
                sample = BadSample(sample.name, str(document), 0, f"images[{number}]: named twice")
            seen.add(sample.name)
            yield sample

    labelled = "annotations" in content
    return SampleSource("coco", "detection" if labelled else "", classes if labelled else (), splits, samples)


def _documents(root: Path) -> dict[str, Path]:
    """The COCO documents of a folder by split: "instances_val2017.json" is "val2017"."""
    found: dict[str, Path] = {}
    for path in sorted([*root.glob("*.json"), *(root / "annotations").glob("*.json")]):
        with path.open("rb") as file:
            start = file.read(1 << 20)
        if b'"images"' in start or b'"annotations"' in start or b'"categories"' in start:
            found[path.stem.rpartition("_")[2]] = path
    return found


def _base(document: Path) -> Path:
    return document.parent.parent if document.parent.name == "annotations" else document.parent


def _load(document: Path) -> dict[str, Any]:
    try:
        content = read_json(document.read_bytes())
    except json.JSONDecodeError as error:
        raise SampleError("LAYOUT_INVALID", f"{document}:{error.lineno}: not JSON: {error.msg}") from error
    except ValueError as error:
        raise SampleError("LAYOUT_INVALID", f"{document}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SampleError("LAYOUT_INVALID", f"{document}: not a COCO document: expected an object")
    for key in ("images", "categories", "annotations"):
        if not isinstance(content.get(key, [] if key == "annotations" else None), list):
            raise SampleError("LAYOUT_INVALID", f"{document}: not a COCO document: {key!r} must be a list")
    for number, entry in enumerate(content["categories"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int) or "name" not in entry:
            raise SampleError("LAYOUT_INVALID", f"{document}: categories[{number}] needs an id and a name")
    return content


def _image_folder(document: Path, images: list[Any]) -> Path:
    """Where the images are: COCO's usual places, the first that holds one of the first images."""
    base = _base(document)
    split = document.stem.rpartition("_")[2]
    places = [document.parent, base / "images" / split, base / split, base / "images", base]
    for entry in images[:20]:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        for place in places:
            if isinstance(name, str) and (path := inside(place, name)) and is_present(path):
                return place
    return document.parent


def _sample(
    document: Path,
    folder: Path,
    base: Path,
    number: int,
    entry: Any,
    by_image: dict[Any, list[tuple[int, Any]]],
    class_ids: dict[int, int],
) -> FoundSample | BadSample:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        return BadSample(f"images[{number}]", str(document), 0, f"images[{number}] has no file_name")
    name = entry["file_name"]
    path = inside(folder, name)
    if path is None:
        return BadSample(
            name, str(document), 0, f"images[{number}]: {name} leads out of the dataset's folder"
        )
    name = relative_name(path, base) if path.is_relative_to(base) else name
    if not is_present(path):
        return BadSample(name, str(path), 0, "the image is missing")
    boxes: list[Box] = []
    for index, annotation in by_image.get(_identity(entry.get("id")), []):
        box = _box(annotation, entry, class_ids)
        if isinstance(box, str):
            return BadSample(name, str(document), 0, f"annotations[{index}]: {box}")
        boxes.append(box)
    return FoundSample(name, path, media_type(path), tuple(boxes))


def _identity(value: Any) -> int | str | None:
    """What an image or a category is called by; None for what can be no name."""
    return value if isinstance(value, (int, str)) else None


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether it may be a place in an image; JSON also takes NaN and numbers beyond all floats."""
    return isinstance(value, (int, float)) and abs(value) <= _LARGEST


def _box(annotation: Any, image: dict[str, Any], class_ids: dict[Any, int]) -> Box | str:
    """The annotation's box, or what is wrong with it."""
    if not isinstance(annotation, dict):
        return "an annotation is an object"
    width, height, bbox = image.get("width"), image.get("height"), annotation.get("bbox")
    if not (_is_number(width) and _is_number(height) and width > 0 and height > 0):
        return "its image has no width and height"
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        return "bbox must be four numbers: x, y, width, height"
    category = class_ids.get(_identity(annotation.get("category_id")))
    if category is None:
        return f"category_id {annotation.get('category_id')!r} is not among the categories"
    left, top = max(0.0, bbox[0]), max(0.0, bbox[1])
    right, bottom = min(width, bbox[0] + bbox[2]), min(height, bbox[1] + bbox[3])
    box = Box(
        category,
        (left + right) / 2 / width,
        (top + bottom) / 2 / height,
        (right - left) / width,
        (bottom - top) / height,
        crowd=bool(annotation.get("iscrowd", 0)),
    )
    return f"{problem} (bbox {bbox} in {width}x{height})" if (problem := box.problem()) else box
