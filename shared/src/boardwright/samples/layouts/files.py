"""Finding image files below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from boardwright.samples.errors import SampleError

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".ppm": "image/x-portable-pixmap",
    ".pgm": "image/x-portable-graymap",
}

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "calibration", "evaluation"}


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image of a known kind."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in MEDIA_TYPES


def media_type(path: Path) -> str:
    """The media type by the file's name."""
    return MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def leads_out(path: Path, root: Path) -> bool:
    """Whether a symbolic link, at the file or above it, leads out of the dataset's folder."""
    try:
        real = os.path.realpath(path)  # unlike Path.resolve it takes a loop of links as it is
    except ValueError:
        return False  # a name with a zero byte names no file
    return not Path(real).is_relative_to(os.path.realpath(root))


def walk_images(folder: Path) -> Iterator[Path]:
    """Every image below a folder, sorted by path; hidden files and folders are passed over."""
    for current, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in sorted(names):
            if is_image(name):
                yield Path(current) / name


def is_present(path: Path) -> bool:
    """Whether a file that a dataset names is there; a name that no file can have names none."""
    return os.path.isfile(path)  # Path.is_file raises where the name is too long


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold something, stripped.

    Raises:
        SampleError: ``LAYOUT_INVALID``, it is not text in UTF-8.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SampleError("LAYOUT_INVALID", f"{path}: not text in UTF-8: {error.reason}") from error
    return [stripped for line in lines if (stripped := line.strip())]


def relative_name(path: Path, root: Path) -> str:
    """The path below ``root`` with forward slashes."""
    return path.relative_to(root).as_posix()


def is_split_name(name: str) -> bool:
    """Whether a folder's name is that of a split ("train", "val2017"), not of a class."""
    return name.rstrip("0123456789").lower() in _SPLITS


def choose_split(split: str, splits: tuple[str, ...]) -> tuple[str, ...]:
    """The splits to read.

    Raises:
        SampleError: ``SPLIT_UNKNOWN``, naming those there are.
    """
    if not split:
        return splits
    if split not in splits:
        known = ", ".join(splits) if splits else "none"
        raise SampleError("SPLIT_UNKNOWN", f"there is no split {split!r} here; splits: {known}")
    return (split,)


def inside(root: Path, name: str) -> Path | None:
    """The file a dataset names, or None when the name, or a link, leads out of the dataset's folder."""
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(os.path.normpath(root)) or leads_out(path, root):
        return None
    return path
