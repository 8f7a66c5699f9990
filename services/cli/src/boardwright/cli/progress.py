"""Bars on standard error; one line a stage where nobody watches."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from boardwright.cli.output import Format, for_people

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_QUIET_SECONDS = 0.3


class Bars:
    """`with Bars(output) as bars: client.push(…, progress=bars)`.

    On a terminal, one bar that appears when the work takes longer than a moment. Elsewhere, and with
    `-o json`, a line whenever another stage begins.
    """

    def __init__(self, output: Format = Format.TABLE) -> None:
        self._live = output is Format.TABLE and sys.stderr.isatty()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._started = time.monotonic()
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show how far the work is."""
        if not self._live:
            stage = what.partition(":")[0]
            if stage and stage not in self._told:
                self._told.add(stage)
                sys.stderr.write(f"{stage}\n")
            return
        if self._progress is None:
            if time.monotonic() - self._started < _QUIET_SECONDS:
                return
            self._progress, self._task = _bar()
            self._progress.start()
        if self._task is not None:
            self._progress.update(
                self._task, completed=done, total=total or None, description=for_people(what)
            )

    def note(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        sys.stderr.write(text + "\n")

    def clear(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _bar() -> tuple[Progress, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    return progress, progress.add_task("", total=None)
