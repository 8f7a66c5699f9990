"""Signal and noise: how far values that were rounded, pruned or converted are from the exact ones.

Two measures, and every pass that compares tensors takes one of them (``recover``, which learns by the second,
pools it over samples and channels). All sums are in float64.

- **SQNR**, the signal-to-quantization-noise ratio of a whole tensor in decibels: the exact values' power (sum
  of squares) over their error's. It says how far values are off.
- **Relative error**: the mean squared error over the exact values' *variance*, channel by channel, since what
  is the same for every input informs nobody, and pixels must not drown scores. 0 is equal; from 1 on a
  channel says no more than its mean.

What is not finite: equal infinities (masks) are no error, and what should be infinite and is not has no size
that could be compared; a NaN or infinity in place of a number is infinite noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MOST_DB = 120.0
"""Where decibels end: float32 itself keeps 140 dB or so, and equal values any number."""


def decibels(noise: float, signal: float = 1.0) -> float:
    """Return ``signal`` over ``noise`` (powers, or a ratio alone) in decibels, from -120 to 120.

    Without noise that is 120; with noise and no signal, or where the noise is not finite, -120.
    """
    if noise == 0:
        return MOST_DB
    if not signal > 0 or not math.isfinite(noise):
        return -MOST_DB
    return max(-MOST_DB, min(MOST_DB, 10 * math.log10(signal / noise)))


def noise_to_signal(sqnr_db: float) -> float:
    """Return the ratio that ``decibels`` was given: noise over signal."""
    return float(10 ** (-sqnr_db / 10))


def powers(ours: Array, exact: Array) -> tuple[float, float]:
    """Return the power of ``exact`` and that of the error of ``ours``; both are floats of one shape."""
    import numpy as np

    wide = exact.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = ours - wide
    signal, noise = float(np.vdot(wide, wide)), float(np.vdot(error, error))
    if math.isfinite(signal + noise):
        return signal, noise
    finite = np.isfinite(wide)
    noise = float(np.square(error[finite]).sum())
    return float(np.square(wide[finite]).sum()), noise if math.isfinite(noise) else math.inf


class SqnrMeter:
    """Signal and noise of tensors by name, summed over samples."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, ours: Mapping[str, Array], exact: Mapping[str, Array]) -> None:
        """Add the tensors of one sample. Those of whole numbers or of other shapes are left out."""
        for name, wanted in exact.items():
            found = ours.get(name)
            if found is None or found.shape != wanted.shape or wanted.dtype.kind != "f":
                continue
            signal, noise = powers(found, wanted)
            signal_so_far, noise_so_far = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (signal_so_far + signal, noise_so_far + noise)

    def sqnr_db(self) -> dict[str, float]:
        """Return the SQNR of each tensor that was added."""
        return {name: decibels(noise, signal) for name, (signal, noise) in self._sums.items()}

    @property
    def is_finite(self) -> bool:
        """Whether no tensor held NaN or infinity in place of a number."""
        return all(math.isfinite(noise) for _, noise in self._sums.values())


def relative_errors(ours: Array, exact: Array, variances: Array | None = None) -> Array:
    """Return the mean squared error over the variance of ``exact`` by channel: float64 of (C,) or ().

    ``variances`` are those of ``exact``, where they are known already. A channel that should be constant, and
    one with NaN or infinity in place of a number, has an infinite error unless it is equal.
    """
    import numpy as np

    if variances is None:
        variances = channel_variances(exact)
    with np.errstate(all="ignore"):
        error = np.subtract(ours, exact, dtype=np.float64)
        noise = _means(np.square(error))
        if not np.isfinite(noise).all():
            noise = _means(np.square(np.where(np.isfinite(exact), error, 0.0)))
        ratios: Array = np.nan_to_num(np.where(noise == 0, 0.0, noise / variances), nan=np.inf, posinf=np.inf)
    return ratios


def channel_variances(exact: Array) -> Array:
    """Return the variance of each channel of an output: float64 of (C,), or () where it has none.

    That of its finite values; 0 without any.
    """
    import numpy as np

    axes = _other_axes(exact.shape)
    finite = np.isfinite(exact)
    if finite.all() and exact.size:
        found: Array = np.asarray(exact.var(axis=axes, dtype=np.float64))
        return found
    counts = np.maximum(finite.sum(axis=axes, keepdims=True), 1)
    kept = np.where(finite, exact, 0).astype(np.float64)
    centred = np.where(finite, kept - kept.sum(axis=axes, keepdims=True) / counts, 0.0)
    found = (np.square(centred).sum(axis=axes, keepdims=True) / counts).squeeze(axes)
    return found


def _means(values: Array) -> Array:
    """Return the mean of each channel, 0 of no values: float64 of (C,), or ()."""
    import numpy as np

    axes = _other_axes(values.shape)
    count = math.prod(values.shape[axis] for axis in axes)
    found: Array = np.asarray(values.sum(axis=axes) / max(count, 1))
    return found


def noise_ratio(
    ours: Sequence[Array], exact: Sequence[Array], variances: Sequence[Array] | None = None
) -> float:
    """Return how much of some outputs is noise, 0 to 1: their channels' relative errors, averaged.

    Channels of an output count alike, and so do outputs. A channel with more noise than variance has lost all
    it had and counts as 1, as does an output of another shape.
    """
    import numpy as np

    shares = []
    for number, (found, wanted) in enumerate(zip(ours, exact, strict=True)):
        if found.shape != wanted.shape or not wanted.size:
            shares.append(1.0)
            continue
        errors = relative_errors(found, wanted, None if variances is None else variances[number])
        shares.append(float(np.minimum(errors, 1.0).mean()))
    return float(np.mean(shares)) if shares else 0.0


def _other_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that are no channels: axis 1 of four holds them, the shorter of three, none of two."""
    channel = None
    if len(shape) == 3:
        channel = 1 if shape[1] < shape[2] else 2
    elif len(shape) > 3:
        channel = 1
    return tuple(axis for axis in range(len(shape)) if axis != channel)
