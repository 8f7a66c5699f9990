"""How far a device's outputs may lie from the builder's: derived from the model itself, and explained.

Two correct runs of one graph differ: sums are taken in another order (float), and a value near the middle
between two integers rounds the other way (integer kernels), after which a whole step of the quantization
propagates. How much a particular network makes of that is seen by running the same artifact's graph through
other kernels of the same runtime on the same samples. The tolerance is a few times that spread, and never
less than what the number format itself can hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MARGIN = 4.0
"""The tolerance over the spread seen: other CPUs have other kernels than the two compared here."""
FLOAT_RELATIVE = 1e-4
FLOAT_FLOOR = 1e-5
"""Of the output's largest value: about a hundred float32 roundings."""
INTEGER_RELATIVE = 0.1
"""Of each element: a quantized detector's boxes move by a share of their size, its scores by little."""
INTEGER_FLOOR = 1e-3
"""Of the outputs' median magnitude, for integer graphs whose outputs are not themselves on an 8-bit grid."""
GRID_STEPS = 2.0
"""Steps that an output on an 8-bit grid may always miss by."""
OUTLIERS = 0.01
"""Share of elements of an integer graph's output that may miss it: near ties flip in a few places."""

_GRID_VALUES = 256
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """An element passes if |actual - expected| <= absolute + relative * |expected|; a share may miss it."""

    absolute: float
    relative: float
    outliers: float
    explanation: str
    warnings: tuple[str, ...] = ()


def choose_tolerance(
    expected: Sequence[npt.NDArray[np.generic]],
    alternatives: Sequence[Sequence[npt.NDArray[np.generic]]],
    integer_graph: bool,
) -> Tolerance:
    """Choose a tolerance.

    ``expected`` holds the artifact's outputs (one array per output, samples on the first axis);
    ``alternatives`` the same outputs from other kernels. For an integer graph the spread is taken where all
    but ``OUTLIERS`` of the elements lie, and what large elements miss in proportion is counted as relative.
    """
    wanted = [_floats(array) for array in expected]
    relative = INTEGER_RELATIVE if integer_graph else FLOAT_RELATIVE
    outliers = OUTLIERS if integer_graph else 0.0
    spread = max(
        (
            _beyond(_floats(other), array, relative if integer_graph else 0.0, outliers)
            for outputs in alternatives
            for other, array in zip(outputs, wanted, strict=True)
        ),
        default=0.0,
    )
    floor = max((_floor(array, integer_graph) for array in wanted), default=0.0)
    absolute = _two_digits(max(MARGIN * spread, floor, 1e-7))
    largest = max((float(np.abs(array).max(initial=0.0)) for array in wanted), default=0.0)
    if MARGIN * spread >= floor:
        why = (
            f"{MARGIN:g} times the {spread:.2g} by which the runtime's other kernels differ on these samples"
        )
    else:
        what = "two steps of the output's 8-bit grid" if integer_graph else "float32 rounding"
        why = f"the floor of {what}, since the runtime's other kernels differ by only {spread:.2g}"
    share = f", {outliers:.1%} of the elements excepted" if outliers else ""
    told = f"absolute {absolute:g} (largest output {largest:.4g}) and relative {relative:g}{share}: {why}."
    return Tolerance(absolute, relative, outliers, told, _too_wide(wanted, absolute, relative, outliers))


def _beyond(actual: Floats, expected: Floats, relative: float, outliers: float) -> float:
    """Return what the difference exceeds the relative part by, for all but the share of outliers."""
    beyond = np.abs(actual - expected) - relative * np.abs(expected)
    return max(float(np.quantile(beyond, 1 - outliers)) if beyond.size else 0.0, 0.0)


def _floor(array: Floats, integer_graph: bool) -> float:
    magnitudes = np.abs(array)
    if not integer_graph:
        return FLOAT_FLOOR * float(magnitudes.max(initial=0.0))
    values = np.unique(array)
    if 2 <= values.size <= _GRID_VALUES:
        return GRID_STEPS * float(np.diff(values).min())
    return INTEGER_FLOOR * float(np.median(magnitudes)) if magnitudes.size else 0.0


def _too_wide(
    expected: Sequence[Floats], absolute: float, relative: float, outliers: float
) -> tuple[str, ...]:
    """Warn when one sample's outputs would pass as another's: then the samples prove nothing."""
    count = min((len(array) for array in expected), default=0)
    for index in range(count - 1):
        shares = [
            float(
                (np.abs(array[index] - array[index + 1]) > absolute + relative * np.abs(array[index])).mean()
            )
            for array in expected
        ]
        if all(share <= outliers for share in shares):
            return (
                f"Golden samples {index} and {index + 1} have outputs within tolerance of each other, so "
                "they catch only gross errors. Choose more varied samples.",
            )
    return ()


def _floats(array: npt.NDArray[np.generic]) -> Floats:
    return np.asarray(array, dtype=np.float64)


def _two_digits(value: float) -> float:
    """Round up to two significant digits, for people."""
    exponent = math.floor(math.log10(value)) - 1
    return float(f"{math.ceil(value / 10.0**exponent)}e{exponent}")
