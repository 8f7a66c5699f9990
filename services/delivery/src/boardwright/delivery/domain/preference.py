"""Which bundle a device takes where several of one board fit it: the fastest, as far as that was measured.

A Release may hold artifacts of several toolchains for one board (ONNX Runtime and OpenVINO on x86-64, say). A
device takes the first that fits, so their order decides. It is settled when a rollout begins and kept with
it: a Measurement that comes later never moves a fleet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_THREADS_OF_GATES = 1


@dataclass(frozen=True, slots=True)
class MeasuredLatency:
    """A latency that was measured on a board, not emulated.

    Attributes:
        host: the machine that ran it, without its runtime; figures of different hosts are never compared.
        threads: 1, or 0 for the runtime's default.
        create_us: when it was recorded; of two alike the newer counts.
    """

    board: str
    host: str
    threads: int
    p50_ms: float
    create_us: int


@dataclass(frozen=True, slots=True)
class Contender:
    """An artifact of a release, with what was measured of it."""

    artifact: str
    pin: Mapping[str, Any]
    latencies: Sequence[MeasuredLatency] = ()

    @property
    def board(self) -> str:
        """The board that it was built for."""
        return str(self.pin.get("board", ""))

    @property
    def runtime(self) -> str:
        """Its runtime with the version."""
        return f"{self.pin.get('runtime', '')} {self.pin.get('runtime_version', '')}".strip()


@dataclass(frozen=True, slots=True)
class Choice:
    """The order in which a board's devices look at its artifacts, and why."""

    board: str
    artifacts: tuple[str, ...]
    because: str


def contested(pins: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The boards that more than one pin is for."""
    boards = [str(pin.get("board", "")) for pin in pins]
    return frozenset(board for board in boards if boards.count(board) > 1)


def prefer(contenders: Sequence[Contender]) -> tuple[Choice, ...]:
    """The choice of each board that has more than one artifact, by board."""
    by_board: defaultdict[str, list[Contender]] = defaultdict(list)
    for contender in contenders:
        by_board[contender.board].append(contender)
    return tuple(_choose(board, found) for board, found in sorted(by_board.items()) if len(found) > 1)


def _choose(board: str, contenders: Sequence[Contender]) -> Choice:
    by_name = sorted(contenders, key=lambda contender: contender.artifact)
    threads, times = _comparable(board, by_name)
    if not times:
        runtimes = ", ".join(sorted({contender.runtime for contender in contenders}))
        because = (
            f"none of the {len(contenders)} artifacts ({runtimes}) was measured on {board or 'its board'}, "
            "so their names decide; measure them side by side, and start a rollout again"
        )
        return Choice(board, tuple(contender.artifact for contender in by_name), because)
    ordered = sorted(by_name, key=lambda contender: times.get(contender.artifact, float("inf")))
    return Choice(
        board, tuple(contender.artifact for contender in ordered), _told(board, ordered, threads, times)
    )


def _comparable(board: str, contenders: Sequence[Contender]) -> tuple[int, dict[str, float]]:
    """The threads and the p50 in ms of each artifact, under the conditions that most were measured in.

    Of equally many, one thread goes first (what gates and reports speak of), then the newest.
    """
    found: defaultdict[tuple[str, int], dict[str, MeasuredLatency]] = defaultdict(dict)
    for contender in contenders:
        for latency in sorted(contender.latencies, key=lambda latency: latency.create_us):
            if latency.board == board and latency.p50_ms > 0:
                found[latency.host, latency.threads][contender.artifact] = latency
    if not found:
        return 0, {}

    def rank(conditions: tuple[str, int]) -> tuple[int, bool, int, str]:
        newest = max(latency.create_us for latency in found[conditions].values())
        return len(found[conditions]), conditions[1] == _THREADS_OF_GATES, newest, conditions[0]

    best = max(found, key=rank)
    return best[1], {artifact: latency.p50_ms for artifact, latency in found[best].items()}


def _told(board: str, ordered: Sequence[Contender], threads: int, times: Mapping[str, float]) -> str:
    with_threads = "one thread" if threads == 1 else f"{threads} threads" if threads else "default threads"
    first, *others = ordered
    figures = [
        f"{times[other.artifact]:.3g} ms ({other.runtime})" for other in others if other.artifact in times
    ]
    unknown = sorted(other.runtime for other in others if other.artifact not in times)
    told = f"{first.runtime} takes {times[first.artifact]:.3g} ms"
    if figures:
        told += f" against {', '.join(figures)}"
    told += f" (p50 with {with_threads}, measured on {board})"
    return told + (f"; not measured there: {', '.join(unknown)}" if unknown else "")
