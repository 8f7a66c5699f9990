"""The grid that a layer's weights are rounded to: the one that the quantizer will choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.power_of_two import least_error_steps
from boardwright.compiler.engine.scheme import REDUCED_BOUND, WEIGHT_BOUND, QuantizationScheme
from boardwright.toolchains.pairs import LARGEST_PAIR, largest_pairs

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


_ON_GRID = 1e-3
"""How far from a grid's points, in steps, weights may lie that were rounded to it and stored as float32."""
_NEAR = range(-3, 2)
"""By how much the bound of weights that were rounded already may differ from what their pairs tell."""


def weight_steps(weight: Array, scheme: QuantizationScheme, groups: int = 1) -> Array:
    """Return the distance between two grid points: float64 of shape (O, 1, ...), or one for all.

    ``weight`` is (O, I / groups, ...).
    """
    import numpy as np

    if scheme.bounds_pairs:
        return _pair_steps(weight, groups)
    axes = tuple(range(1, weight.ndim)) if scheme.per_channel else None
    if scheme.power_of_two:
        return least_error_steps(weight, axes, scheme.weight_bound)
    largest = np.abs(weight).max(axis=axes, keepdims=True).astype(np.float64)
    steps: Array = np.where(largest > 0, largest / scheme.weight_bound, 1.0)
    return steps


def round_weight(weight: Array, scheme: QuantizationScheme, groups: int = 1) -> Array:
    """Return ``weight`` (O, I / groups, ...) as symmetric INT8 keeps it: float64, by the grid's steps."""
    import numpy as np

    steps, bound = weight_steps(weight, scheme, groups), scheme.weight_bound
    rounded: Array = np.clip(np.rint(weight / steps), -bound, bound) * steps
    return rounded


def _pair_steps(weight: Array, groups: int) -> Array:
    """Return steps under which no pair of uint8 × int8 products leaves 16 bits: float64 of (O, 1, ...).

    Two weights of one sign that sum up to 127 steps are at most ``LARGEST_PAIR`` whichever way each is
    rounded. A channel's largest weight becomes an integer, 63 to 127, so that weights which were
    rounded already are found on the grid that they lie on.
    """
    import numpy as np

    exact = weight.astype(np.float64)
    rows = exact.reshape(len(exact), -1)
    largest, pairs = np.abs(rows).max(axis=1), largest_pairs(exact, groups)
    read = np.where(largest > 0, largest, 1.0)
    bound = np.floor(WEIGHT_BOUND * read / np.where(largest > 0, pairs, 1.0) + 1e-6).clip(max=WEIGHT_BOUND)
    chosen = bound.copy()
    for near in [REDUCED_BOUND - bound, *(np.full_like(bound, by) for by in _NEAR)]:
        tried = (bound + near).clip(1, WEIGHT_BOUND)
        places = rows * (tried / read)[:, None]
        integers = np.rint(places)
        on_grid = np.abs(places - integers).max(axis=1) < _ON_GRID
        if on_grid.any():
            on_grid &= largest_pairs(integers.reshape(weight.shape), groups) <= LARGEST_PAIR
            chosen = np.where(on_grid, tried, chosen)
    steps: Array = (read / chosen).reshape(-1, *[1] * (weight.ndim - 1))
    return steps
