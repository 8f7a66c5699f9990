"""Lease rules: which worker may take a step, for how long, and how often a step is tried.

A lease is a promise with an end. Each time a step is leased its fencing number grows by one; whoever
reports with an older number (a worker that slept through its lease) is refused, so that a step ends once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from boardwright.jobs.step_api import ANY_BOARD, Requirements

_MAX_HEARTBEAT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How leases behave. Times in seconds; ``max_attempts`` counts each run of a step, also the first."""

    duration_seconds: float = 60.0
    max_attempts: int = 3
    first_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0

    @property
    def heartbeat_seconds(self) -> float:
        """How often a worker is asked for a heartbeat: three times a lease, and soon after a cancellation."""
        return min(self.duration_seconds / 3, _MAX_HEARTBEAT_SECONDS)

    def backoff_seconds(self, attempts: int) -> float:
        """Return how long to wait before the next attempt, after ``attempts`` failed ones (1 or more)."""
        return min(self.max_backoff_seconds, self.first_backoff_seconds * 2.0 ** (attempts - 1))


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker has: its step kinds, and the boards, toolchains and accelerators it can serve.

    An empty ``kinds`` offers every kind. ``memory_bytes`` is the most a step may ask for.
    """

    worker: str
    kinds: frozenset[str] = frozenset()
    boards: frozenset[str] = field(default_factory=frozenset)
    toolchains: frozenset[str] = field(default_factory=frozenset)
    accelerators: frozenset[str] = field(default_factory=frozenset)
    memory_bytes: int = 1 << 62

    def fits(self, kind: str, requires: Requirements) -> bool:
        """Tell whether this worker may run a step of ``kind`` that ``requires`` this."""
        return not self.lacks(kind, requires)

    def lacks(self, kind: str, requires: Requirements) -> list[str]:
        """Return, in words, what such a step needs and this worker has not."""
        lacking = []
        if self.kinds and kind not in self.kinds:
            lacking.append(f"the step kind {kind}")
        if requires.board not in (ANY_BOARD, *self.boards):
            lacking.append(f"the board {requires.board}")
        if requires.toolchain and requires.toolchain not in self.toolchains:
            lacking.append(f"the toolchain {requires.toolchain}")
        if requires.accelerator and requires.accelerator not in self.accelerators:
            lacking.append(f"the accelerator {requires.accelerator}")
        if requires.memory_bytes > self.memory_bytes:
            lacking.append(
                f"{requires.memory_bytes >> 20} MiB of memory ({self.worker} offers "
                f"{self.memory_bytes >> 20}, as its BOARDWRIGHT_WORKER_MEMORY_MIB says, or nine tenths of "
                "its machine's)"
            )
        return lacking


def waiting_reason(offers: Collection[Offer], kind: str, requires: Requirements) -> str:
    """Return why a ready step waits, given the workers that asked for work lately."""
    if not offers:
        return "waiting for a worker: none has asked for work lately"
    lacking = [offer.lacks(kind, requires) for offer in offers]
    if not all(lacking):
        return "waiting for a worker"
    return "waiting for a worker that has " + " and ".join(sorted(lacking, key=len)[0])
