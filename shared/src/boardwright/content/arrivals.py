"""Hashes an upload while its later parts are on their way: little is left to do once the last one is here.

A whole part never changes any more (`parts` sees to that), so its hash can be taken at once. Parts are
hashed in order, each read back from the file. How far that is, is known to this process alone: one that
starts in the middle of an upload catches up, a few parts at a time, and where nobody gets to the end,
`finish_upload` reads everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from boardwright.content.digest import Digest
from boardwright.content.errors import InvalidContent
from boardwright.content.file_errors import store_errors
from boardwright.content.store import CHUNK_BYTES, PartPlan

_DIGEST_FILE = "digest"
# Whoever sends a part waits for its hash: of so many parts, 64 MiB, at most.
_PARTS_AT_ONCE = 8
# Whoever begins more uploads at a time only makes this process forget: `finish_upload` reads everything.
_MOST_UPLOADS = 256


def part_marker(folder: Path, number: int) -> Path:
    """The file that says that a part of an upload is whole."""
    return folder / f"part-{number}"


def hashed_on_arrival(folder: Path) -> Digest | None:
    """The digest of all of an upload's bytes, which are on the disk, or None where nobody hashed them all."""
    try:
        return Digest((folder / _DIGEST_FILE).read_text(encoding="ascii"))
    except (FileNotFoundError, InvalidContent, UnicodeDecodeError):  # the latter: a crash tore it
        return None


@dataclass(slots=True)
class _Progress:
    """How far the hash of one upload is: its first `parts` parts."""

    parts: int = 0
    hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    lock: threading.Lock = field(default_factory=threading.Lock)


class ArrivalHashes:
    """The hashes of the uploads whose parts this process receives. May be used from many threads.

    Args:
        root: of the store, for error messages.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, _Progress] = OrderedDict()

    def part_arrived(self, folder: Path, plan: PartPlan) -> None:
        """Hash the parts that are whole and next in order; after the last one, leave the digest beside them.

        Raises:
            StoreUnavailable, StoreFull: the disk failed.
        """
        if plan.count == 1:  # nothing comes later
            return
        progress = self._progress(folder.name)
        with (
            progress.lock,
            store_errors(self._root),
            contextlib.suppress(FileNotFoundError),  # the upload was given up
            (folder / "data").open("rb", buffering=0) as file,
        ):
            following = min(progress.parts + _PARTS_AT_ONCE, plan.count)
            while progress.parts < following and part_marker(folder, progress.parts + 1).exists():
                progress.parts += 1
                file.seek(plan.offset(progress.parts))
                _hash(file, plan.length(progress.parts), progress.hasher)
            if progress.parts == plan.count:
                os.fsync(file.fileno())  # at a loss of power the digest must not outlive what it speaks of
                (folder / _DIGEST_FILE).write_text(progress.hasher.hexdigest(), encoding="ascii")

    def _progress(self, handle: str) -> _Progress:
        with self._lock:
            progress = self._uploads.setdefault(handle, _Progress())
            self._uploads.move_to_end(handle)
            if len(self._uploads) > _MOST_UPLOADS:
                self._uploads.popitem(last=False)
            return progress


def _hash(file: FileIO, length: int, hasher: hashlib._Hash) -> None:
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while length and (count := file.readinto(buffer[: min(length, CHUNK_BYTES)])):
        hasher.update(buffer[:count])
        length -= count
