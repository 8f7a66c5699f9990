"""The tails that sampled histograms miss, put back from the extremes that are exact.

A histogram of a few thousand values per sample holds none of the largest ones: of a tensor of a hundred
thousand values per sample, one in a hundred is read. What it does not show costs a search nothing to cut off,
yet a detector's surest objects are just these values: on YOLOv5n, cutting one tensor at 4 whose values reach
7 cost as much as all other roundings of the network together. Every channel's extremes are known exactly,
and each was taken at least once.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import shapes_of

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from boardwright.compiler.engine.observe import CalibrationRecord, TensorStatistics

    Array = np.ndarray[Any, Any]


def value_counts(model: onnx.ModelProto, record: CalibrationRecord) -> dict[str, int]:
    """Return how many values each tensor of known shape took over all samples of ``record``."""
    return {
        name: record.samples * prod(shape)
        for name, shape in shapes_of(model.graph).items()
        if all(length > 0 for length in shape)
    }


def distribution(name: str, found: TensorStatistics, values_seen: Mapping[str, int]) -> tuple[Array, Array]:
    """Return values in ascending order and their weights (float64), with the exact extremes among them.

    ``values_seen`` has the number of values behind the histogram's sample. An extreme weighs as one value of
    them; as one of the sample where the number is not known.
    """
    import numpy as np

    values, counts = found.histogram.ordered()
    counts = counts.astype(np.float64)
    total = float(counts.sum())
    every = values_seen.get(name, 0)
    if 0 < every <= total:
        return values, counts
    extremes = np.array([found.low, found.high])
    if found.channels is not None:
        extremes = np.concatenate([found.channels.low, found.channels.high])
    weight = total / every if every else 1.0
    values = np.concatenate([values, extremes])
    counts = np.concatenate([counts, np.full(extremes.size, weight)])
    order = np.argsort(values, kind="stable")
    return values[order], counts[order]
