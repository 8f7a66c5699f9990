"""The grid that a layer's weights are rounded to: the one that the quantizer will choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.power_of_two import least_error_steps
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def weight_steps(weight: Array, scheme: QuantizationScheme) -> Array:
    """Return the distance between two grid points: float64 of shape (O, 1, ...), or one for all."""
    import numpy as np

    axes = tuple(range(1, weight.ndim)) if scheme.per_channel else None
    if scheme.power_of_two:
        return least_error_steps(weight, axes, scheme.weight_bound)
    largest = np.abs(weight).max(axis=axes, keepdims=True).astype(np.float64)
    steps: Array = np.where(largest > 0, largest / scheme.weight_bound, 1.0)
    return steps


def round_weight(weight: Array, scheme: QuantizationScheme) -> Array:
    """Return ``weight`` (O, ...) as symmetric INT8 keeps it: float64, one scale per O or one for all."""
    import numpy as np

    steps, bound = weight_steps(weight, scheme), scheme.weight_bound
    rounded: Array = np.clip(np.rint(weight / steps), -bound, bound) * steps
    return rounded
