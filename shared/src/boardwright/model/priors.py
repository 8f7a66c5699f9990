"""Where candidates of a dense head lie: cells of strided levels, and SSD's prior boxes."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@lru_cache(maxsize=16)
def cells(size: tuple[float, float], strides: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """The cells of every level, finest first, row by row.

    Args:
        size: the tensor's (width, height).

    Returns:
        (N, 2) column and row of each cell, (N,) its stride. A level has ceil(side / stride) cells per side.
    """
    corners, steps = [], []
    for stride in strides:
        columns, rows = (math.ceil(side / stride) for side in size)
        across, down = np.meshgrid(np.arange(columns), np.arange(rows))
        corners.append(np.stack([across, down], axis=2).reshape(-1, 2))
        steps.append(np.full(columns * rows, stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(steps).astype(np.float32)


def prior_boxes(levels: Sequence[Mapping[str, Any]]) -> FloatArray:
    """(N, 4) centre and size in pixels of the prior boxes that ``OutputSpec.priors`` declares."""
    boxes = []
    for level in levels:
        rows, columns = level["grid"]
        stride = level["stride"]
        down, across = stride if isinstance(stride, (list, tuple)) else (stride, stride)
        offset = level.get("offset", 0.5)
        x, y = np.meshgrid((np.arange(columns) + offset) * across, (np.arange(rows) + offset) * down)
        sizes = np.array(level["sizes"], np.float64)
        centre = np.repeat(np.stack([x, y], axis=2).reshape(-1, 2), len(sizes), axis=0)
        boxes.append(np.concatenate([centre, np.tile(sizes, (rows * columns, 1))], axis=1))
    return np.concatenate(boxes).astype(np.float32)
