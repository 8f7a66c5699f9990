"""How sure a figure is: intervals of 95 %, and whether a difference between paired answers may be chance."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from boardwright.model.detection import ClassCurve

    Array = np.ndarray[Any, Any]

Interval = tuple[float, float]

Z95 = 1.959963984540054
RESAMPLES = 200
_SEED = 0
_NORMAL = NormalDist()
_CELLS_AT_ONCE = 4_000_000


def wilson(successes: int, total: int) -> Interval:
    """Wilson's score interval of a proportion (1927): it holds near 0 and 1, where the usual one does not."""
    if not total:
        return 0.0, 1.0
    share, square = successes / total, Z95 * Z95
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z95 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(both: int, only_ours: int, only_theirs: int, neither: int) -> Interval:
    """Interval of the difference of two proportions over the same samples, ours less theirs.

    Newcombe's method 10 (1998): Wilson's intervals of both, joined by the correlation of the pairs.
    """
    total = both + only_ours + only_theirs + neither
    if not total:
        return -1.0, 1.0
    ours, theirs = both + only_ours, both + only_theirs
    low_ours, high_ours = wilson(ours, total)
    low_theirs, high_theirs = wilson(theirs, total)
    product = ours * (total - ours) * theirs * (total - theirs)
    excess: float = both * neither - only_ours * only_theirs
    if excess > 0:
        excess = max(excess - total / 2, 0)
    phi = excess / math.sqrt(product) if product else 0.0
    mine, other = ours / total, theirs / total

    def half(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = mine - other
    low = difference - half(mine - low_ours, high_theirs - other)
    high = difference + half(high_ours - mine, other - low_theirs)
    return max(-1.0, low), min(1.0, high)


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """McNemar's exact test (1947): how probable so uneven a split is if both models were equally good."""
    discordant = only_ours + only_theirs
    if not discordant:
        return 1.0
    fewer = min(only_ours, only_theirs)
    logs = (
        math.lgamma(discordant + 1) - math.lgamma(k + 1) - math.lgamma(discordant - k + 1)
        for k in range(fewer + 1)
    )
    tail = sum(math.exp(log - discordant * math.log(2)) for log in logs)
    return min(1.0, 2 * tail)


def resample_weights(images: int) -> Array:
    """(R, I) how often each image is drawn in each resample of as many images; the same every time."""
    import numpy as np

    random = np.random.default_rng(_SEED)
    return random.multinomial(images, np.full(images, 1 / images), size=RESAMPLES).astype(np.float32)


def corrected_percentiles(values: Array, figure: float) -> Interval:
    """95 % of resampled figures, corrected for their bias (Efron, 1981), the figure itself among them.

    Fewer distinct images make a mean average precision larger than more do (its curves are envelopes, rare
    classes drop out), and a resample has fewer: its plain percentiles lie too high.
    """
    import numpy as np

    share = float((np.count_nonzero(values < figure) + np.count_nonzero(values <= figure)) / 2 / len(values))
    least = 0.5 / len(values)
    shift = _NORMAL.inv_cdf(min(max(share, least), 1 - least))
    places = [100 * _NORMAL.cdf(2 * shift + side * Z95) for side in (-1, 1)]
    low, high = np.percentile(values, places)
    return min(float(low), figure), max(float(high), figure)


def resampled_f1(counts: Array) -> Interval:
    """Interval of F1 from (I, 3) true positives, false positives and misses of each image."""
    import numpy as np

    sums = resample_weights(len(counts)) @ counts.astype(np.float32)
    hits, extra, missed = sums.T
    found, others = counts[:, 0].sum(), counts[:, 1:].sum()
    figure = float(2 * found / max(2 * found + others, 1))
    return corrected_percentiles(2 * hits / np.maximum(2 * hits + extra + missed, 1), figure)


def resampled_map(curves: Mapping[int, ClassCurve], weights: Array) -> Array:
    """(R,) mAP50-95 of each resample of the images, as a fraction of 1."""
    import numpy as np

    total, present = np.zeros(len(weights)), np.zeros(len(weights))
    for curve in curves.values():
        truths = weights[:, curve.truth_images].sum(axis=1)
        rows = max(1, _CELLS_AT_ONCE // max(1, len(curve.images)))
        for start in range(0, len(weights), rows):
            part = slice(start, start + rows)
            there = truths[part] > 0
            total[part] += np.where(there, _resampled_precision(curve, weights[part], truths[part]), 0)
            present[part] += there
    found: Array = total / np.maximum(present, 1)
    return found


def _resampled_precision(curve: ClassCurve, weights: Array, truths: Array) -> Array:
    """(R,) average precision of one class, the mean over the thresholds.

    Between two hits precision only falls, so its envelope is known from the hits alone.
    """
    import numpy as np

    from boardwright.model.detection import RECALLS

    drawn = weights[:, curve.images]
    everything = np.cumsum(drawn, axis=1, dtype=np.float32)
    averages = np.zeros(len(weights))
    row = np.arange(len(weights))[:, np.newaxis] * 2.0
    for hits, counted in zip(curve.matched, curve.counted, strict=True):
        at = np.flatnonzero(hits & counted)
        if not len(at):
            continue
        seen = everything if counted.all() else np.cumsum(drawn * counted, axis=1, dtype=np.float32)
        true_positives = np.cumsum(drawn[:, at], axis=1, dtype=np.float64)
        precision = true_positives / np.maximum(seen[:, at], 1e-9)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = true_positives / np.maximum(truths, 1)[:, np.newaxis]
        # Rows are two apart, so that one sorted search answers for all of them.
        keys = (np.minimum(recall, 1.0) + row).ravel()
        places = np.searchsorted(keys, (RECALLS[np.newaxis] + row).ravel() - 1e-9).reshape(len(weights), -1)
        places -= np.arange(len(weights))[:, np.newaxis] * len(at)
        padded = np.concatenate([precision, np.zeros((len(weights), 1))], axis=1)
        averages += np.take_along_axis(padded, places, axis=1).mean(axis=1)
    averages /= len(curve.matched)
    return averages
