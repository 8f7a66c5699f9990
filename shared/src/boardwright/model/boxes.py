"""Boxes: conversions, intersection over union, and non-maximum suppression."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]

_BLOCK = 128


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
    """Greedy non-maximum suppression within each class, block by block, which keeps the loop in Python short.

    Returns:
        The indices of the kept boxes, best score first, at most ``limit``. Ties keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    # Moving each class to its own place lets one pass treat all of them: boxes of two classes never meet.
    shift = (boxes.max(initial=0.0) - min(0.0, float(boxes.min(initial=0.0))) + 1) * classes
    moved = boxes.astype(np.float64) + shift[:, np.newaxis]
    areas = np.clip(moved[:, 2:] - moved[:, :2], 0, None).prod(axis=1)
    kept = np.zeros(0, np.intp)
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        if len(kept):
            block = block[~_overlapping(moved, areas, block, kept, iou_threshold).any(axis=1)]
        rivals = _overlapping(moved, areas, block, block, iou_threshold)
        alive = np.ones(len(block), np.bool_)
        for index in np.flatnonzero(rivals.sum(axis=1) > 1):  # the others overlap with nothing but themselves
            if alive[index]:
                alive[index + 1 :] &= ~rivals[index, index + 1 :]
        kept = np.concatenate([kept, block[alive]])
        if len(kept) >= limit:
            break
    return kept[:limit]


def _overlapping(
    boxes: npt.NDArray[Any], areas: npt.NDArray[Any], left: IndexArray, right: IndexArray, threshold: float
) -> npt.NDArray[np.bool_]:
    """(N, M): whether boxes by index overlap by more than the threshold. One axis at a time saves memory."""
    first, second = boxes[left], boxes[right]
    inner = np.minimum(first[:, 2, np.newaxis], second[:, 2])
    inner -= np.maximum(first[:, 0, np.newaxis], second[:, 0])
    np.maximum(inner, 0, out=inner)
    height = np.minimum(first[:, 3, np.newaxis], second[:, 3])
    height -= np.maximum(first[:, 1, np.newaxis], second[:, 1])
    inner *= np.maximum(height, 0, out=height)
    union = areas[left][:, np.newaxis] + areas[right] - inner
    over: npt.NDArray[np.bool_] = inner > threshold * union
    return over
