"""Durable and atomic file writes.

A file is visible under its name only when all its bytes are on the disk: it is written beside its
place, flushed, renamed, and the folder is flushed. A crash leaves at most a file that starts with
``.new-``, which `remove_leftovers` clears.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

_PREFIX = ".new-"
_COPIED_BYTES = 1 << 20


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, *, mode: int = 0o755) -> None:
    """Create a folder and its missing parents, each durably in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode=mode)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put ``data`` at ``path``, atomically and durably, replacing what was there.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is as it was before.
    """
    beside = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file to a new place, onto the disk. Raises: OSError."""
    with open(source, "rb") as given, open(path, "xb") as made:
        shutil.copyfileobj(given, made, _COPIED_BYTES)
        made.flush()
        os.fsync(made.fileno())


def remove_leftovers(folder: Path) -> int:
    """Remove what interrupted writes left below ``folder``; returns how many files that were."""
    leftovers = [path for path in folder.rglob(f"{_PREFIX}*") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)
