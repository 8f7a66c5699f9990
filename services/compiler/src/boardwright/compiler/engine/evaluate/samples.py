"""What a model is judged with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image with what is known of it.

    ``image`` is (H, W, C) uint8 or a Pillow image. ``class_index`` labels a classification sample. ``boxes``
    (M, 4) xyxy in pixels of the image with ``classes`` (M,) label a detection sample; M may be 0. None
    where there is no label. ``crowd_boxes`` (K, 4) with ``crowd_classes`` (K,) are groups, in which
    detections count neither for nor against. ``areas`` (M,) are the objects' in pixels,
    where they are not the boxes'.
    """

    name: str
    image: Any
    class_index: int | None = None
    boxes: Array | None = None
    classes: Array | None = None
    crowd_boxes: Array | None = None
    crowd_classes: Array | None = None
    areas: Array | None = None
