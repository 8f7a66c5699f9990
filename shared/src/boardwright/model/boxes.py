"""Boxes: conversions, intersection over union, and non-maximum suppression."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]


def xywh_to_xyxy(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, 4) centre and size to two corners."""
    half = boxes[:, 2:4] / 2
    corners: npt.NDArray[Any] = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    return corners


def iou_matrix(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, 4) and (M, 4) xyxy boxes to their (N, M) intersections over unions."""
    top_left = np.maximum(left[:, np.newaxis, :2], right[np.newaxis, :, :2])
    bottom_right = np.minimum(left[:, np.newaxis, 2:], right[np.newaxis, :, 2:])
    inner = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    areas = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=1) for b in (left, right)]
    union = areas[0][:, np.newaxis] + areas[1][np.newaxis] - inner
    overlaps: npt.NDArray[Any] = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
    return overlaps


def suppress(
    boxes: FloatArray, scores: FloatArray, classes: IndexArray, iou_threshold: float, limit: int
) -> IndexArray:
    """Greedy non-maximum suppression within each class.

    Returns:
        The indices of the kept boxes, best score first, at most ``limit``. Ties keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    # Moving each class to its own place lets one pass treat all of them: boxes of two classes never meet.
    shift = (boxes.max(initial=0.0) - min(0.0, float(boxes.min(initial=0.0))) + 1) * classes
    moved = boxes.astype(np.float64) + shift[:, np.newaxis]
    areas = np.clip(moved[:, 2:] - moved[:, :2], 0, None).prod(axis=1)
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        corner = np.minimum(moved[best, 2:], moved[rest, 2:]) - np.maximum(moved[best, :2], moved[rest, :2])
        inner = np.clip(corner, 0, None).prod(axis=1)
        order = rest[inner <= iou_threshold * (areas[best] + areas[rest] - inner)]
    return np.array(kept, np.intp)
