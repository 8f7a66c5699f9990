"""Histograms over fixed bins: a float's sign, exponent and top 7 mantissa bits are its bin.

No pass over the samples is needed to find a range first, any two histograms merge, and a bin is never wider
than 1/128 of its values. Only bins that were hit are stored, so that a tensor takes a few kilobytes whatever
number of samples it saw. (The bins are those of bfloat16; compare Circllhist, https://arxiv.org/abs/2001.06561,
which bins by decimal exponent and mantissa for the same reasons.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BIN_CODES = 1 << 16
_SIGN = 0x8000


@dataclass(frozen=True, slots=True, eq=False)
class FloatHistogram:
    """``codes`` (uint16, ascending, no duplicates) are upper halves of float32; ``counts`` is int64."""

    codes: Array
    counts: Array

    def __eq__(self, other: object) -> bool:
        import numpy as np

        if not isinstance(other, FloatHistogram):
            return NotImplemented
        return np.array_equal(self.codes, other.codes) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(cls) -> FloatHistogram:
        """Return the histogram of nothing."""
        import numpy as np

        return cls(np.zeros(0, np.uint16), np.zeros(0, np.int64))

    @classmethod
    def from_codes(cls, codes: Array, weights: Array | None = None) -> FloatHistogram:
        """Count bins: ``codes`` is uint16 of any shape, ``weights`` its counts (default: one each)."""
        import numpy as np

        counts = np.bincount(codes.reshape(-1), weights, minlength=BIN_CODES)
        counts[0] += counts[_SIGN]  # -0.0 is 0
        counts[_SIGN] = 0
        hit = np.flatnonzero(counts)
        return cls(hit.astype(np.uint16), np.rint(counts[hit]).astype(np.int64))

    @classmethod
    def from_values(cls, values: Array, weights: Array | None = None) -> FloatHistogram:
        """Count float values of any shape."""
        return cls.from_codes(codes_of(values), weights)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def merge(self, other: FloatHistogram) -> FloatHistogram:
        """Return the histogram of both."""
        import numpy as np

        codes = np.union1d(self.codes, other.codes)
        counts = np.zeros(codes.size, np.int64)
        counts[np.searchsorted(codes, self.codes)] += self.counts
        counts[np.searchsorted(codes, other.codes)] += other.counts
        return FloatHistogram(codes, counts)

    def ordered(self) -> tuple[Array, Array]:
        """Return the bins' middle values in ascending order (float64), and their counts."""
        import numpy as np

        inner = (self.codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        outer = ((self.codes.astype(np.uint32) + 1) << 16).view(np.float32).astype(np.float64)
        values = np.where(self.codes == 0, 0.0, (inner + outer) / 2)
        order = np.argsort(values, kind="stable")
        return values[order], self.counts[order]

    def magnitudes(self) -> tuple[Array, Array, Array]:
        """Return lower and upper bounds and counts of the absolute values other than zero, ascending."""
        import numpy as np

        codes = self.codes & (_SIGN - 1)
        counts = np.bincount(codes, self.counts, minlength=1)
        hit = np.flatnonzero(counts)
        hit = hit[hit > 0]
        lower = (hit.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        upper = ((hit.astype(np.uint32) + 1) << 16).view(np.float32).astype(np.float64)
        return lower, upper, counts[hit]

    def to_json(self) -> dict[str, Any]:
        """Return bins as steps from one to the next, and counts."""
        import numpy as np

        return {
            "steps": np.diff(self.codes.astype(np.int64), prepend=0).tolist(),
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FloatHistogram:
        """Read a histogram back."""
        import numpy as np

        codes = np.cumsum(np.asarray(values["steps"], np.int64)).astype(np.uint16)
        return cls(codes, np.asarray(values["counts"], np.int64))


def codes_of(values: Array) -> Array:
    """Return each value's bin (uint16, flat)."""
    import numpy as np

    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return (flat.view(np.uint32) >> 16).astype(np.uint16)
