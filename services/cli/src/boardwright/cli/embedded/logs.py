"""One log file a process, rotated by size."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_MAX_BYTES = 8 << 20
_KEPT = 3


class RotatingLog:
    """Appends bytes to ``path``; when it has grown to ``max_bytes`` it becomes ``path.1``, and so on."""

    def __init__(self, path: Path, *, max_bytes: int = _MAX_BYTES, kept: int = _KEPT) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._size = path.stat().st_size

    def write(self, written: bytes) -> None:
        """Append; rotation happens at the end of a line. What a full disk does not take is lost."""
        try:
            if self._file.closed:
                self._file = self._path.open("ab", buffering=0)
            self._file.write(written)
            self._size += len(written)
            if self._size >= self._max_bytes and written.endswith(b"\n"):
                self._rotate()
        except OSError:
            # The services must go on: they refuse what they cannot store, and say so.
            return

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._file = self._path.open("ab", buffering=0)
        self._size = 0

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def tail(path: Path, max_bytes: int = 2000) -> str:
    """Return the last lines of a log, "" where there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - max_bytes))
            return stream.read().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
