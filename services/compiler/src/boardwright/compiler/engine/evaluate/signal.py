"""How far a model's raw outputs are from its baseline's, whatever they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_MOST_DB = 120.0


class SignalMeter:
    """Signal and noise of each output, summed over samples."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> None:
        """Add the raw outputs of one sample. Outputs of whole numbers or of other shapes are left out."""
        import numpy as np

        for name, reference in theirs.items():
            mine = ours.get(name)
            if mine is None or mine.shape != reference.shape or reference.dtype.kind != "f":
                continue
            wide = reference.astype(np.float64)
            with np.errstate(invalid="ignore"):
                error = mine.astype(np.float64) - wide
            power, noise = float(np.vdot(wide, wide)), float(np.vdot(error, error))
            if not math.isfinite(
                power + noise
            ):  # masked logits are infinite on purpose: equal ones are no error
                counts = np.isfinite(wide)
                error = np.where(mine == reference, 0.0, np.where(np.isfinite(mine), error, wide))
                power = float(np.square(wide[counts]).sum())
                noise = float(np.square(error[counts]).sum())
            signal_so_far, noise_so_far = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (signal_so_far + power, noise_so_far + noise)

    def sqnr_db(self) -> dict[str, float]:
        """Signal to quantization noise of each output in decibels, at most 120 (equal outputs)."""
        return {name: _ratio_db(signal, noise) for name, (signal, noise) in self._sums.items()}


def _ratio_db(signal: float, noise: float) -> float:
    if noise <= 0:
        return _MOST_DB
    if signal <= 0:
        return 0.0
    return min(_MOST_DB, 10 * math.log10(signal / noise))
