"""Resident memory of a process and its descendants, read from Linux's ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """Return ``pid`` and all its living descendants, whatever their process groups.

    Empty where the process is gone. Without ``/proc`` (not Linux) only ``pid`` itself is known.
    """
    if not _PROC.is_dir():
        return [pid]
    found: list[int] = []
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            threads = os.listdir(_PROC / str(current) / "task")
        except OSError:
            continue
        found.append(current)
        for thread in threads:
            try:
                children = (_PROC / str(current) / "task" / thread / "children").read_text(encoding="ascii")
            except OSError:
                continue
            waiting.extend(int(child) for child in children.split())
    return found


def resident_bytes(pid: int) -> int:
    """Return the resident memory of ``pid`` and its descendants in bytes (shared pages count each time)."""
    total = 0
    for member in descendants(pid):
        try:
            fields = (_PROC / str(member) / "statm").read_text(encoding="ascii").split()
        except OSError:
            continue
        total += int(fields[1]) * _PAGE_BYTES
    return total
