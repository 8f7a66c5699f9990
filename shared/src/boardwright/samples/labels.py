"""Labels: a class index, the boxes of an image, or nothing."""

import math
from dataclasses import dataclass
from typing import Any

from boardwright.samples.errors import SampleError

REASON = "LABEL_INVALID"
MAX_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class Box:
    """One object: centre and size relative to the image (0 to 1).

    ``crowd`` marks a group that counts neither for nor against a detector (COCO's ``iscrowd``).
    """

    class_id: int
    center_x: float
    center_y: float
    width: float
    height: float
    crowd: bool = False

    def problem(self) -> str:
        """What is wrong with it in plain words; empty when nothing is."""
        values = (self.center_x, self.center_y, self.width, self.height)
        if self.class_id < 0:
            return f"class {self.class_id} is negative"
        if not all(math.isfinite(value) for value in values):
            return "a coordinate is not a finite number"
        if not all(0 <= value <= 1 for value in values):
            return "a coordinate is outside of 0 to 1 (relative to the image, not pixels)"
        if self.width <= 0 or self.height <= 0:
            return "the box has no area"
        return ""


Label = int | tuple[Box, ...] | None
"""A class index (classification), boxes (detection; none for an empty image), or None when unlabelled."""


def label_to_json(label: Label) -> Any:
    """An int, a list of [class, x, y, width, height] (and 1 for a crowd), or None."""
    if label is None or isinstance(label, int):
        return label
    return [
        [box.class_id, box.center_x, box.center_y, box.width, box.height, *([1] if box.crowd else [])]
        for box in label
    ]


def label_from_json(value: Any) -> Label:
    """Read what ``label_to_json`` wrote.

    Raises:
        SampleError: ``LABEL_INVALID``, saying what is wrong.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise SampleError(REASON, f"class {value} is negative")
        return value
    if not isinstance(value, list):
        raise SampleError(REASON, f"a label is a class index or a list of boxes, not {value!r}")
    return tuple(_box(entry, number) for number, entry in enumerate(value))


def _box(entry: Any, number: int) -> Box:
    if (
        not isinstance(entry, list)
        or len(entry) not in (5, 6)
        or not all(isinstance(value, (int, float)) for value in entry)
        or not isinstance(entry[0], int)
    ):
        raise SampleError(REASON, f"box {number} must be [class, x, y, width, height], not {entry!r}")
    x, y, width, height = (float(value) for value in entry[1:5])
    box = Box(entry[0], x, y, width, height, crowd=len(entry) == 6 and bool(entry[5]))
    if problem := box.problem():
        raise SampleError(REASON, f"box {number}: {problem}")
    return box


def check_classes(label: Label, class_count: int) -> str:
    """What is wrong with the label's classes; empty when all are below ``class_count`` (0 allows any)."""
    if label is None or class_count == 0:
        return ""
    used = [label] if isinstance(label, int) else [box.class_id for box in label]
    highest = max(used, default=-1)
    if highest >= class_count:
        return f"class {highest} is beyond the {class_count} known classes (0 to {class_count - 1})"
    return ""
