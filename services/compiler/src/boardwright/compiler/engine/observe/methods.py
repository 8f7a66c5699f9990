"""Methods that choose a range from what was seen of a tensor: all from the same statistics.

- **min-max**: every value fits.
- **percentile**: a share of all values fits; what is cut is split evenly between both ends.
- **mse**: the smallest mean squared error of 8-bit rounding and clipping together (Shin et al., 2016; Banner
  et al., "Post training 4-bit quantization", https://arxiv.org/abs/1810.05723, derive the same trade-off).
- **entropy**: the threshold whose 8-bit histogram diverges least from the float one (Migacz, "8-bit Inference
  with TensorRT", GTC 2017). It cuts long tails hard: where most values are small and few large ones carry
  the answer, as behind SiLU, it costs more than it gains (YOLOv5n lost 7 points of mAP by it, none by mse).

Zero itself is represented exactly by every scheme, so that values of exactly zero cost nothing in ``mse`` and
are left out of ``entropy``, which would otherwise see little else behind a Relu.

Of a sampled histogram only ``mse`` is given the exact extremes beside it. A percentile cuts them off whatever
they are, and entropy did not choose better with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.observe.record import TensorRange, TensorStatistics, check_method
from boardwright.compiler.engine.observe.tails import distribution, with_tails

if TYPE_CHECKING:
    import numpy as np

    from boardwright.compiler.engine.observe.histogram import FloatHistogram

    Array = np.ndarray[Any, Any]

_LEVELS = 256
_RATIO_PER_STEP, _STEPS = 0.955, 96  # candidates from the whole range down to 1/80 of it
_POWERS = 7
_LINEAR_BINS, _COARSE, _FINE = 2048, 16, 6


def choose_range(
    statistics: TensorStatistics,
    method: str,
    *,
    symmetric: bool = False,
    percentile: float = 99.99,
    power_of_two: bool = False,
) -> TensorRange:
    """Return the range that ``method`` keeps of a tensor.

    ``symmetric`` says that the range will be widened to [-t, t], ``power_of_two`` that its step will be
    rounded up to one: of such steps ``mse`` takes the best. A tensor that is constant, or of which no
    value was counted, keeps what it took.

    Raises:
        EngineError: METHOD_UNKNOWN.
    """
    check_method(method)
    whole = TensorRange(statistics.low, statistics.high)
    if method == "min-max" or whole.low >= whole.high or not statistics.histogram.total:
        return whole
    values, weights = distribution(statistics)
    if method == "percentile":
        return _percentile(values, weights, whole, percentile)
    if not values.any():
        return whole
    if method == "mse":
        values, weights = with_tails(statistics)
        if symmetric:
            return _mse_symmetric(values, weights, whole, power_of_two)
        return _mse(values, weights, whole)
    return _entropy(statistics.histogram, whole, symmetric)


def _percentile(values: Array, weights: Array, whole: TensorRange, share: float) -> TensorRange:
    import numpy as np

    cut = (1 - share / 100) / 2 * weights.sum()
    below = np.cumsum(weights)
    above = np.cumsum(weights[::-1])[::-1]
    low = values[np.searchsorted(below, cut, side="right").clip(max=values.size - 1)]
    high = values[np.flatnonzero(above > cut)[-1]]
    low = whole.low if below[0] > cut else float(low)
    high = whole.high if above[-1] > cut else float(high)
    return TensorRange(low, high) if low < high else whole


class _Sums:
    """Sums over values below a bound, by binary search."""

    def __init__(self, values: Array, weights: Array) -> None:
        import numpy as np

        self.values = values
        self.zeroth = np.concatenate([[0.0], np.cumsum(weights)])
        self.first = np.concatenate([[0.0], np.cumsum(weights * values)])
        self.second = np.concatenate([[0.0], np.cumsum(weights * values * values)])

    def clipped_above(self, bound: Array) -> Array:
        """Return the squared error of cutting everything above each ``bound`` to it."""
        import numpy as np

        at = np.searchsorted(self.values, bound, side="right")
        count = self.zeroth[-1] - self.zeroth[at]
        first, second = self.first[-1] - self.first[at], self.second[-1] - self.second[at]
        error: Array = np.maximum(second - 2 * bound * first + bound * bound * count, 0)
        return error

    def count_up_to(self, bound: Array) -> Array:
        import numpy as np

        found: Array = self.zeroth[np.searchsorted(self.values, bound, side="right")]
        return found

    def squares_below(self, bound: Array) -> Array:
        import numpy as np

        found: Array = self.second[np.searchsorted(self.values, bound, side="left")]
        return found

    def count_below(self, bound: Array) -> Array:
        import numpy as np

        found: Array = self.zeroth[np.searchsorted(self.values, bound, side="left")]
        return found


def _by_magnitude(values: Array, weights: Array) -> _Sums:
    import numpy as np

    order = np.argsort(np.abs(values), kind="stable")
    kept = order[values[order] != 0]
    return _Sums(np.abs(values[kept]), weights[kept])


def _candidates(bound: float) -> Array:
    import numpy as np

    kept: Array = abs(bound) * _RATIO_PER_STEP ** np.arange(_STEPS) if bound else np.zeros(1)
    return kept


def _rounding_error(magnitudes: _Sums, inside: Array, step: Array) -> Array:
    """Return the squared error of rounding ``inside`` values other than zero to multiples of ``step``.

    Values below half a step become 0 and lose their square; the others lose step² / 12 on average.
    """
    small = magnitudes.count_below(step / 2)
    error: Array = magnitudes.squares_below(step / 2) + (inside - small).clip(min=0) * step * step / 12
    return error


def _mse(values: Array, weights: Array, whole: TensorRange) -> TensorRange:
    import numpy as np

    high, low = _candidates(max(whole.high, 0.0)), _candidates(min(whole.low, 0.0))
    up, down = _Sums(values, weights), _Sums(-values[::-1], weights[::-1])
    clipped = up.clipped_above(high)[:, None] + down.clipped_above(low)[None, :]
    positive = up.count_up_to(high) - up.count_up_to(np.zeros(1))
    negative = down.count_up_to(low) - down.count_up_to(np.zeros(1))
    step = (high[:, None] + low[None, :]) / (_LEVELS - 1)
    error = clipped + _rounding_error(
        _by_magnitude(values, weights), positive[:, None] + negative[None, :], step
    )
    above, below = np.unravel_index(int(np.argmin(error)), error.shape)
    # A range that does not reach zero stays away from it: schemes widen it themselves.
    return TensorRange(
        -float(low[below]) if whole.low < 0 else whole.low,
        float(high[above]) if whole.high > 0 else whole.high,
    )


def _mse_symmetric(
    values: Array, weights: Array, whole: TensorRange, power_of_two: bool = False
) -> TensorRange:
    import numpy as np

    from boardwright.compiler.engine.power_of_two import rounded_up

    bounds = _candidates(whole.magnitude)
    if power_of_two:
        bounds = rounded_up(whole).high / 2.0 ** np.arange(_POWERS)
    magnitudes = _by_magnitude(values, weights)
    error = magnitudes.clipped_above(bounds) + _rounding_error(
        magnitudes, magnitudes.count_up_to(bounds), bounds / (_LEVELS / 2 - 1)
    )
    return _cut(whole, float(bounds[int(np.argmin(error))]))


def _entropy(histogram: FloatHistogram, whole: TensorRange, symmetric: bool) -> TensorRange:
    import numpy as np

    bound = whole.magnitude
    other = min(-whole.low, whole.high)
    levels = _LEVELS // 2
    if not symmetric and other < bound:
        levels = round(_LEVELS * bound / (bound + max(other, 0.0)))
    linear = _linear(histogram, bound)
    coarse = np.unique(np.linspace(levels, _LINEAR_BINS, _COARSE).astype(int))
    found = [(_divergence(linear, int(bins), levels), int(bins)) for bins in coarse]
    best = min(found, key=lambda entry: (entry[0], -entry[1]))[1]
    stride = int(coarse[1] - coarse[0])
    near = np.linspace(best - stride + 1, best + stride - 1, _FINE).astype(int).clip(levels, _LINEAR_BINS)
    found += [(_divergence(linear, int(bins), levels), int(bins)) for bins in np.unique(near)]
    best = min(found, key=lambda entry: (entry[0], -entry[1]))[1]
    return _cut(whole, bound * best / _LINEAR_BINS)


def _linear(histogram: FloatHistogram, bound: float) -> Array:
    """Return the magnitudes other than zero in equal bins up to ``bound``, each fixed bin spread evenly."""
    import numpy as np

    lower, upper, counts = histogram.magnitudes()
    at = np.minimum(np.stack([lower, upper], axis=1).reshape(-1), bound)
    total = np.cumsum(counts)
    known = np.stack([total - counts, total], axis=1).reshape(-1)
    edges = np.linspace(0, bound, _LINEAR_BINS + 1)
    cumulative = np.interp(edges, at, known)
    cumulative[-1] = known[-1]
    spread: Array = np.diff(cumulative)
    return spread


def _divergence(histogram: Array, bins: int, levels: int) -> float:
    """Return KL(P || Q) of the first ``bins`` with outliers in the last, against ``levels`` even steps."""
    import numpy as np

    inside = histogram[:bins]
    reference = inside.copy()
    reference[-1] += histogram[bins:].sum()
    group = np.arange(bins) * levels // bins
    filled = inside > 0
    sums = np.bincount(group, inside, minlength=levels)
    hits = np.bincount(group, filled, minlength=levels)
    shares = np.divide(sums, hits, out=np.zeros(levels), where=hits > 0)
    quantized = np.where(filled, shares[group], 0.0)
    total, kept = reference.sum(), quantized.sum()
    if not total or not kept:
        return float("inf")
    p, q = reference / total, np.maximum(quantized / kept, 1e-12)
    held = p > 0
    return float((p[held] * np.log(p[held] / q[held])).sum())


def _cut(whole: TensorRange, bound: float) -> TensorRange:
    """Return the part of ``whole`` whose magnitude is at most ``bound``; ranges beyond it stay."""
    low, high = max(whole.low, -bound), min(whole.high, bound)
    return TensorRange(low, high) if low < high else whole
