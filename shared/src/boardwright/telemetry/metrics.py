"""Counters and histograms in plain Python, rendered as Prometheus text.

A counter is a dictionary entry; no client library is loaded.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from typing import TypeVar

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Counter:
    """A number that only grows, by label values."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, amount: float, *labels: str) -> None:
        """Add `amount` under these label values, given in the order of `labels`."""
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def set(self, value: float, *labels: str) -> None:
        """Set the value (gauges)."""
        self._values[labels] = value

    def value(self, *labels: str) -> float:
        """The value under these labels."""
        return self._values.get(labels, 0.0)

    def lines(self) -> list[str]:
        """Prometheus sample lines."""
        return [f"{self.name}{_labels(self.labels, k)} {v:g}" for k, v in sorted(self._values.items())]


class Gauge(Counter):
    """A number that goes up and down."""

    kind = "gauge"


class Histogram:
    """How a duration is distributed, in seconds, by label values."""

    kind = "histogram"

    def __init__(
        self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = _SECONDS
    ) -> None:
        self.name, self.text, self.labels, self.bounds = name, text, tuple(labels), tuple(bounds)
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Record one value under these label values."""
        series = self._series.get(labels)
        if series is None:
            series = self._series.setdefault(labels, ([0] * (len(self.bounds) + 1), [0.0]))
        series[0][bisect_left(self.bounds, value)] += 1
        series[1][0] += value

    def lines(self) -> list[str]:
        """Prometheus sample lines: cumulative buckets, sum, count."""
        out = []
        names = (*self.labels, "le")
        for key, (counts, total) in sorted(self._series.items()):
            running = 0
            for bound, count in zip((*(f"{b:g}" for b in self.bounds), "+Inf"), counts, strict=True):
                running += count
                out.append(f"{self.name}_bucket{_labels(names, (*key, bound))} {running}")
            out.append(f"{self.name}_sum{_labels(self.labels, key)} {total[0]:g}")
            out.append(f"{self.name}_count{_labels(self.labels, key)} {running}")
        return out


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)) + "}"


M = TypeVar("M", Counter, Gauge, Histogram)

_lock = threading.Lock()
_registered: dict[str, Counter | Histogram] = {}


def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
    """The process's counter of that name, made at the first call."""
    return _register(Counter(name, text, labels))


def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
    """The process's gauge of that name, made at the first call."""
    return _register(Gauge(name, text, labels))


def histogram(name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
    """The process's histogram of that name, made at the first call."""
    return _register(Histogram(name, text, labels))


def _register(metric: M) -> M:
    with _lock:
        known = _registered.setdefault(metric.name, metric)
    if type(known) is not type(metric):
        raise ValueError(f"the metric {metric.name} exists with another type")
    return known


def metrics_text() -> str:
    """Everything counted so far, in Prometheus' text format 0.0.4."""
    lines = []
    for metric in sorted(_registered.values(), key=lambda m: m.name):
        lines += [
            f"# HELP {metric.name} {metric.text}",
            f"# TYPE {metric.name} {metric.kind}",
            *metric.lines(),
        ]
    return "\n".join(lines) + "\n"
