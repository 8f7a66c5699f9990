"""Tells which stage runs, and how long each took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from boardwright.cli.output import Format, indented
from boardwright.cli.progress import Bars

_NOTES_AT = 19
"""The column of a stage's result."""


@dataclass
class Stage:
    """A stage that runs; `progress` shows how far it is."""

    name: str
    progress: Bars
    result: str = ""
    reused: bool = False
    notes: Sequence[str] = ()

    def done(self, result: str, *, reused: bool = False, notes: Sequence[str] = ()) -> None:
        """Say what came of it, whether it was there before, and what else there is to know."""
        self.result = result
        self.notes = notes
        self.reused = reused


@dataclass
class Stages:
    """The stages of one run, told on standard error as they end."""

    count: int
    output: Format
    ended: list[dict[str, object]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Run a stage; its line appears when it ends."""
        number = len(self.ended) + 1
        begun = time.monotonic()
        with Bars(self.output) as bars:
            current = Stage(name, bars)
            bars(0, 0, name)
            yield current
        seconds = time.monotonic() - begun
        again = "  (from before)" if current.reused else ""
        line = f"{number:>2}/{self.count}  {name:<11} {current.result}{again}  {seconds:.1f} s"
        notes = [indented(note, _NOTES_AT, sys.stderr) for note in current.notes]
        sys.stderr.write("\n".join([line, *notes]) + "\n")
        sys.stderr.flush()
        self.ended.append(
            {"stage": name, "result": current.result, "reused": current.reused, "seconds": round(seconds, 2)}
        )

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.started
