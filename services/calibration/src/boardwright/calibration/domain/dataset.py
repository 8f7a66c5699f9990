"""Datasets, their versions, and the rules a sample has to keep."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from boardwright.calibration.domain.statistics import Statistics
from boardwright.samples.labels import Label, check_classes

TASKS = ("", "classification", "detection")
MAX_SAMPLE_BYTES = 64 * 1024 * 1024
MAX_CLASSES = 100_000
MAX_BOXES = 10_000
MAX_NAME_LENGTH = 1024

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class State(StrEnum):
    """A version's state: it goes from open to sealed, once."""

    OPEN = "open"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class DatasetKey:
    """A dataset's identity."""

    project: str
    dataset: str


@dataclass(frozen=True, slots=True)
class VersionKey:
    """A version's identity."""

    dataset: DatasetKey
    number: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named family of versions; `task` is one of `TASKS`."""

    key: DatasetKey
    task: str
    description: str
    create_us: int


@dataclass(frozen=True, slots=True)
class Invalid:
    """A sample that cannot be used, and why in plain words."""

    sample: str
    reason: str


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One version of a dataset.

    Attributes:
        row_id: how the storage calls it.
        task: of its dataset.
        classes: names by index.
        sample_count, labelled_count, size_bytes: of what was added; once sealed, of what was kept.
        manifest_digest, statistics, left_out, seal_us: once sealed.
    """

    key: VersionKey
    row_id: int
    task: str
    state: State
    classes: tuple[str, ...]
    sample_count: int
    labelled_count: int
    size_bytes: int
    manifest_digest: str
    statistics: Statistics | None
    left_out: tuple[Invalid, ...]
    creator: str
    create_us: int
    seal_us: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample: what it is called, where its bytes are, and its label."""

    name: str
    digest: str
    size_bytes: int
    media_type: str
    pack_digest: str
    pack_offset: int
    label: Label

    def problem(self) -> str:
        """What is wrong with it apart from its label, in plain words; empty when nothing is."""
        if not self.name or len(self.name) > MAX_NAME_LENGTH:
            return f"the name must have 1 to {MAX_NAME_LENGTH} characters"
        if _CONTROL.search(self.name) or any(part in ("", ".", "..") for part in self.name.split("/")):
            return "the name must be a relative path with forward slashes, without . and .. parts"
        for field, digest in (("digest", self.digest), ("pack_digest", self.pack_digest)):
            if not _DIGEST.fullmatch(digest):
                return f"{field} must be sha256: and 64 hexadecimal digits, not {digest[:80]!r}"
        if not 1 <= self.size_bytes <= MAX_SAMPLE_BYTES:
            return f"size_bytes must be 1 to {MAX_SAMPLE_BYTES}, not {self.size_bytes}"
        if self.pack_offset < 0:
            return f"pack_offset must not be negative ({self.pack_offset})"
        if not self.media_type.startswith("image/"):
            return f"media_type must be an image's, not {self.media_type!r}"
        return ""

    def label_problem(self, task: str, classes: tuple[str, ...]) -> str:
        """What is wrong with its label in a dataset of this task; empty when nothing is."""
        if self.label is None:
            return ""
        if not task:
            return "the dataset is unlabelled; create a dataset with a task for labelled samples"
        if isinstance(self.label, int) != (task == "classification"):
            return f"the dataset's task is {task}: its labels are " + (
                "class ids" if task == "classification" else "boxes"
            )
        if not classes:
            return "the version has no classes; create one that names them"
        if isinstance(self.label, int) and self.label < 0:
            return f"class {self.label} is negative"
        if not isinstance(self.label, int):
            if len(self.label) > MAX_BOXES:
                return f"{len(self.label)} boxes; at most {MAX_BOXES}"
            for number, box in enumerate(self.label):
                if problem := box.problem():
                    return f"box {number}: {problem}"
        return check_classes(self.label, len(classes))

    def class_ids(self) -> tuple[int, ...]:
        """The class of each label: one (classification), one for each box, or none."""
        if self.label is None:
            return ()
        return (self.label,) if isinstance(self.label, int) else tuple(box.class_id for box in self.label)


def classes_problem(classes: Iterable[str]) -> str:
    """What is wrong with a version's class names; empty when nothing is."""
    names = list(classes)
    if len(names) > MAX_CLASSES:
        return f"at most {MAX_CLASSES} classes, not {len(names)}"
    seen: set[str] = set()
    for index, name in enumerate(names):
        if not name or len(name) > MAX_NAME_LENGTH or _CONTROL.search(name):
            return f"class {index} must have a name of 1 to {MAX_NAME_LENGTH} characters"
        if name in seen:
            return f"two classes are called {name!r}"
        seen.add(name)
    return ""
