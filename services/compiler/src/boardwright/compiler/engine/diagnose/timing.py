"""Latency of two graphs in the same minutes: in turns, so that both meet the same noise."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.session import open_session

if TYPE_CHECKING:
    import numpy as np
    import onnx

_WARM_UP = 3
_BLOCK = 5


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one graph over ``runs``. ``cv`` is the standard deviation over the mean."""

    threads: int
    runs: int
    mean_ms: float
    std_ms: float
    cv: float
    p50_ms: float
    p95_ms: float
    iqr_ms: float

    def describe(self) -> dict[str, Any]:
        """Return the figures as JSON-able values."""
        return asdict(self)


def summarise(milliseconds: Sequence[float], threads: int) -> Latency:
    """Return the figures of at least two runs."""
    mean, deviation = statistics.fmean(milliseconds), statistics.stdev(milliseconds)
    quarters = statistics.quantiles(milliseconds, n=4, method="inclusive")
    p95 = statistics.quantiles(milliseconds, n=20, method="inclusive")[-1]
    cv = deviation / mean if mean else 0.0
    return Latency(
        threads,
        len(milliseconds),
        mean,
        deviation,
        cv,
        statistics.median(milliseconds),
        p95,
        quarters[2] - quarters[0],
    )


def measure_both(
    baseline: onnx.ModelProto,
    variant: onnx.ModelProto,
    feed: Mapping[str, np.ndarray[Any, Any]],
    *,
    threads: int,
    runs: int,
) -> tuple[Latency, Latency]:
    """Return the latencies of both graphs on this machine; ``threads`` 0 is the runtime's default."""
    sessions = [open_session(model, threads=threads, exact=False) for model in (baseline, variant)]
    taken: tuple[list[float], list[float]] = ([], [])
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(None, dict(feed))
    while len(taken[1]) < runs:
        for session, times in zip(sessions, taken, strict=True):
            for _ in range(min(_BLOCK, runs - len(times))):
                started = time.perf_counter()
                session.run(None, dict(feed))
                times.append((time.perf_counter() - started) * 1000)
    return summarise(taken[0], threads), summarise(taken[1], threads)
