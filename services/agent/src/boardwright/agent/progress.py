"""Progress for people: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TextIO

from boardwright.agent.download import Progress

_WIDTH = 30
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 5.0


class ConsoleProgress:
    """Draws to one stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._said = ""
        self._stage = ""
        self._drawn = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show a stage (``total`` 0), once until another comes, or how much of ``total`` bytes is done."""
        if not total:
            if what == self._stage:
                return
            self._stage = what
            self._finish_bar()
            self._stream.write(f"{what}\n")
            self._stream.flush()
            return
        now = time.monotonic()
        pause = _REDRAW_SECONDS if self._terminal else _LINE_SECONDS
        if done < total and now - self._drawn < pause:
            return
        self._drawn = now
        self._draw(done, total, what)

    def _draw(self, done: int, total: int, what: str) -> None:
        mega = 1 << 20
        text = f"{done / mega:.1f} of {total / mega:.1f} MiB {what}"
        if not self._terminal:
            self._stream.write(f"{text}\n")
        else:
            filled = _WIDTH * done // total
            self._said = f"\r[{'#' * filled}{'.' * (_WIDTH - filled)}] {text}\x1b[K"
            self._stream.write(self._said)
            if done >= total:
                self._finish_bar()
        self._stream.flush()

    def _finish_bar(self) -> None:
        if self._said:
            self._stream.write("\n")
            self._said = ""


def interruptible(progress: Progress, stop: threading.Event) -> Progress:
    """Progress that ends a download once ``stop`` is set; what arrived is kept for the next start.

    Only downloads end this way: a check or a switch under way is finished first.
    """

    def show(done: int, total: int, what: str) -> None:
        if total and stop.is_set():
            raise KeyboardInterrupt
        progress(done, total, what)

    return show


def console_progress(stream: TextIO, *, quiet: bool = False) -> Progress:
    """What shows progress on ``stream``; with ``quiet`` nothing does."""
    return (lambda done, total, what: None) if quiet else ConsoleProgress(stream)
