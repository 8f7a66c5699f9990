"""A part of a file, read in pieces: at once where the system has it in memory, else blocking."""

from __future__ import annotations

import os
from pathlib import Path

from boardwright.content.file_errors import store_errors
from boardwright.content.store import CHUNK_BYTES

# What a socket takes at once costs least: of larger pieces the rest is copied until there is room again.
_CACHED_BYTES = 512 << 10


class FileRange:
    """The bytes of a file from `offset` to `end`; close it after use.

    Args:
        root: of the store, for error messages.
        path: of the file.
        offset: where it begins.
        end: where it ends.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, root: Path, path: Path, offset: int, end: int) -> None:
        self._file = -1
        self._root = root
        self._at = offset
        self._end = end
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        """The next piece of at most `CHUNK_BYTES`; empty at the end. Blocks on the disk."""
        with store_errors(self._root):
            piece = os.pread(self._file, min(CHUNK_BYTES, self._end - self._at), self._at)
        self._at += len(piece)
        return piece

    def read_cached(self) -> memoryview | None:
        """The next piece if no disk is needed for it, None otherwise (or where the system cannot tell)."""
        length = min(_CACHED_BYTES, self._end - self._at)
        flag = getattr(os, "RWF_NOWAIT", None)
        if flag is None:
            return None
        buffer = bytearray(length)
        try:
            count = os.preadv(self._file, [buffer], self._at, flag)
        except OSError:  # not in memory, or a file system that does not know; `read` tells of real errors
            return None
        self._at += count
        return memoryview(buffer)[:count]

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()
