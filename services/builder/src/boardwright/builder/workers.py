"""Which boards and toolchains the workers that ask for steps speak for.

Kept in memory: workers ask at least every half minute, so a restarted service knows them again at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

FORGET_SECONDS = 120.0


class WorkersSeen:
    """Remembers what was offered lately."""

    def __init__(
        self,
        host_board: str,
        host_features: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host_board = host_board
        self.host_features = host_features
        self._clock = clock
        self._boards: dict[str, float] = {}
        self._toolchains: dict[str, float] = {}

    def note(self, boards: Iterable[str], toolchains: Iterable[str]) -> None:
        """Note a worker's offer."""
        now = self._clock()
        self._boards.update(dict.fromkeys(boards, now))
        self._toolchains.update(dict.fromkeys(toolchains, now))

    @property
    def host_board(self) -> str:
        """The board that this service's own machine is; empty where it is none of the catalogue."""
        return self._host_board

    def boards(self) -> frozenset[str]:
        """Return the boards that this machine or a worker speaks for."""
        return self._lately(self._boards) | ({self._host_board} - {""})

    def toolchains(self) -> frozenset[str]:
        """Return the toolchains that workers offered lately."""
        return self._lately(self._toolchains)

    def _lately(self, seen: dict[str, float]) -> frozenset[str]:
        since = self._clock() - FORGET_SECONDS
        return frozenset(name for name, at in seen.items() if at >= since)
