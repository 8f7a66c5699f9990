"""Latency figures from raw run times: summaries, and ratios that survive a noisy host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import numpy.typing as npt

BOOTSTRAP_ROUNDS = 2000
BOOTSTRAP_SEED = 20261121

Milliseconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Milliseconds over ``runs`` single inferences. Percentiles interpolate linearly (NumPy's default)."""

    runs: int
    mean_ms: float
    std_ms: float
    min_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    def to_json(self) -> dict[str, float]:
        """Return the figures by name, rounded to 0.1 µs."""
        return {
            "runs": float(self.runs),
            **{
                name: round(getattr(self, name), 4)
                for name in ("mean_ms", "std_ms", "min_ms", "p50_ms", "p95_ms", "p99_ms")
            },
        }


@dataclass(frozen=True, slots=True)
class LatencyRatio:
    """How many times faster than the baseline: the median over rounds, with its 95 % interval.

    In each round both were measured within the same fraction of a second, so what slows the host down slows
    down both; the ratio of their medians in that round does not see it.
    """

    speedup: float
    low: float
    high: float
    rounds: int

    def to_json(self) -> dict[str, float]:
        """Return the figures by name."""
        return {
            "speedup": round(self.speedup, 4),
            "speedup_low": round(self.low, 4),
            "speedup_high": round(self.high, 4),
            "rounds": float(self.rounds),
        }


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of runs of one subject: ``timed`` of them count, one before them does not."""

    round: int
    subject: int
    timed: int


def summarize(times_ms: Sequence[float]) -> LatencySummary:
    """Summarize single-inference times; the standard deviation is the sample's (n - 1).

    Raises:
        ValueError: without times.
    """
    values: Milliseconds = np.asarray(times_ms, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no run times to summarize")
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return LatencySummary(
        runs=int(values.size),
        mean_ms=float(values.mean()),
        std_ms=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        min_ms=float(values.min()),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
    )


def interleaved(subjects: int, runs: int, block: int) -> list[Block]:
    """Plan ``runs`` timed runs for each subject, in turns of ``block``, the first of a round changing.

    Rotating the order keeps one subject from always running on what another left in the caches.
    """
    plan: list[Block] = []
    for round_number, start in enumerate(range(0, runs, block)):
        timed = min(block, runs - start)
        order = islice(cycle(range(subjects)), round_number % subjects, round_number % subjects + subjects)
        plan.extend(Block(round_number, subject, timed) for subject in order)
    return plan


def compare(baseline_ms: Sequence[Sequence[float]], subject_ms: Sequence[Sequence[float]]) -> LatencyRatio:
    """Compare two subjects by their rounds: baseline over subject, above 1 where the subject is faster.

    The interval is a percentile bootstrap over rounds with a fixed seed (Efron and Tibshirani, 1993).

    Raises:
        ValueError: without rounds, or with different numbers of them.
    """
    if not baseline_ms or len(baseline_ms) != len(subject_ms):
        raise ValueError("both subjects need the same rounds")
    ratios: Milliseconds = np.asarray(
        [np.median(ours) / np.median(theirs) for ours, theirs in zip(baseline_ms, subject_ms, strict=True)]
    )
    drawn = np.random.default_rng(BOOTSTRAP_SEED).choice(ratios, (BOOTSTRAP_ROUNDS, ratios.size))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return LatencyRatio(float(np.median(ratios)), float(low), float(high), int(ratios.size))
