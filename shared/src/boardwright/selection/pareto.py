"""Which candidates no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate's place. ``accuracy`` is better when higher; the costs (latency in ms, size and memory in
    bytes) when lower. None where it is not known.
    """

    name: str
    accuracy: float | None
    latency_ms: float | None = None
    size_bytes: float | None = None
    memory_bytes: float | None = None

    @property
    def costs(self) -> tuple[float | None, ...]:
        """All four, as figures that are better when lower."""
        return (
            None if self.accuracy is None else -self.accuracy,
            self.latency_ms,
            self.size_bytes,
            self.memory_bytes,
        )


def pareto_front(points: Sequence[Point]) -> tuple[str, ...]:
    """Return the names of the points that no other one dominates, in their order.

    A point dominates another when it is at least as good in every figure and better in one. Only figures that
    are known of every point are compared: with holes in them, "dominates" would not be transitive, and a
    candidate could leave the front because nobody measured it. Equal points stay together.
    """
    known = [place for place in range(4) if all(point.costs[place] is not None for point in points)]
    rows = [tuple(cost for place in known if (cost := point.costs[place]) is not None) for point in points]

    def dominated(row: tuple[float, ...]) -> bool:
        return any(
            other != row and all(theirs <= ours for theirs, ours in zip(other, row, strict=True))
            for other in rows
        )

    return tuple(point.name for point, row in zip(points, rows, strict=True) if not dominated(row))
