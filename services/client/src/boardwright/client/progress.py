"""How long calls tell how far they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`: `total` is 0 when unknown, `what` a few words."""


def silent(done: int, total: int, what: str) -> None:
    """Tell nobody."""
