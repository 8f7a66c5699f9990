"""``read_layout``: from a path to the reader of its layout."""

from collections.abc import Callable
from pathlib import Path

from boardwright.samples.errors import SampleError
from boardwright.samples.found import SampleSource, in_text
from boardwright.samples.layouts import arrays, coco, folder, table, yolo

_READERS: dict[str, Callable[[Path, str], SampleSource]] = {
    "folder": folder.read,
    "csv": table.read,
    "yolo": yolo.read,
    "coco": coco.read,
    "numpy": arrays.read,
}

LAYOUTS = tuple(_READERS)


def read_layout(path: Path | str, layout: str = "auto", *, split: str = "") -> SampleSource:
    """Open a dataset on disk; nothing is decoded or changed.

    Args:
        path: a folder, or the file that describes the dataset (``labels.csv``, ``data.yaml``, a COCO JSON,
            ``.npz``).
        layout: one of ``LAYOUTS``, or "auto" to tell by what is there.
        split: only this part ("train", "calibration"…); empty for everything.

    Returns:
        What was found; iterating yields ``FoundSample`` and ``BadSample`` in a stable order.

    Raises:
        SampleError: ``LAYOUT_UNKNOWN``, ``LAYOUT_INVALID`` (the describing file is broken, with its line),
            ``SPLIT_UNKNOWN`` (names those there are), ``DATASET_NOT_FOUND``.
    """
    root = Path(path)
    if not root.exists():
        raise SampleError("DATASET_NOT_FOUND", f"{root} does not exist")
    chosen = detect_layout(root) if layout == "auto" else layout
    if chosen not in _READERS:
        raise SampleError(
            "LAYOUT_UNKNOWN", f"layout {layout!r} is unknown; use auto or one of {', '.join(LAYOUTS)}"
        )
    source = _READERS[chosen](root, split)
    for name in (*source.classes, *source.splits):
        if in_text(name) != name:
            raise SampleError(
                "LAYOUT_INVALID", f"{root}: the name {in_text(name)} is not text in UTF-8: rename it"
            )
    return source


def detect_layout(root: Path) -> str:
    """The layout of a folder or describing file.

    Raises:
        SampleError: ``LAYOUT_UNKNOWN``.
    """
    if root.is_file():
        by_suffix = {
            ".csv": "csv",
            ".yaml": "yolo",
            ".yml": "yolo",
            ".json": "coco",
            ".npy": "numpy",
            ".npz": "numpy",
        }
        if root.suffix.lower() in by_suffix:
            return by_suffix[root.suffix.lower()]
        raise SampleError(
            "LAYOUT_UNKNOWN",
            f"{root.name} is no dataset: give a folder, or a .csv, .yaml, .json, .npy or .npz file",
        )
    checks = [("yolo", yolo.recognise), ("csv", table.recognise), ("coco", coco.recognise)]
    checks += [("numpy", arrays.recognise), ("folder", folder.recognise)]
    for name, recognise in checks:
        if recognise(root):
            return name
    raise SampleError(
        "LAYOUT_UNKNOWN",
        f"{root} holds no dataset that is known: no images, no .csv, no data.yaml, no COCO JSON, no arrays",
    )
