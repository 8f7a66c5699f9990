"""Blobs by digest, resumable over bad links.

What arrived stays in `<hex>.part` and is continued from its length, in this run or after a kill. A blob
appears under `<hex>` only once its length and SHA-256 are right.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from boardwright.agent.errors import Refused, Unavailable
from boardwright.agent.server import BlobAnswer
from boardwright.content.digest import Digest
from boardwright.content.durable import sync_folder
from boardwright.device.bundle import Bundle, BundleFile

_SPARE_BYTES = 16 << 20
_ATTEMPTS = 5
_PROGRESS_BYTES = 64 << 10
"""With less per attempt a link counts as broken: what came is kept, and the next check goes on from there."""
_LONGEST_PAUSE_SECONDS = 8.0

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and what."""


class BlobSource(Protocol):
    """Where blobs come from."""

    def open_blob(self, digest: Digest, offset: int) -> BlobAnswer:
        """The bytes of a blob from ``offset`` on, or from its start."""
        ...


class Downloads:
    """The folder of downloaded blobs.

    Args:
        folder: where they lie.
        source: where they come from.
        progress: told about every chunk.
        pause: waits between attempts, in seconds.
    """

    def __init__(
        self,
        folder: Path,
        source: BlobSource,
        progress: Progress = lambda done, total, what: None,
        pause: Callable[[float], None] | None = None,
    ) -> None:
        self._folder = folder
        self._source = source
        self._progress = progress
        self._pause = pause or time.sleep

    def path(self, digest: Digest) -> Path:
        """Where a blob lies once it is complete."""
        return self._folder / digest.hex

    def fetch_all(self, bundle: Bundle, present: Iterable[Path] = ()) -> None:
        """Bring every file of a bundle here.

        ``present`` are files on this disk that may hold some of the content (those of the slots): what has
        the right length and digest is linked instead of fetched.

        Raises:
            Refused: BLOB_CHANGED.
            Unavailable: DISK_FULL, or the link broke too often with next to no progress.
            OSError: the disk became full or fails.
        """
        missing = [
            file for file in bundle.files if not (self._is_complete(file) or self._adopt(file, present))
        ]
        self._check_space(missing)
        total = bundle.size_bytes
        done = total - sum(file.size_bytes for file in missing)
        for file in missing:
            self._fetch(file, partial(self._tell, done, total, file.name))
            done += file.size_bytes
        self._progress(total, total, "downloaded")

    def keep_only(self, bundle: Bundle) -> None:
        """Remove every download that is not part of ``bundle``."""
        wanted = {file.digest.hex for file in bundle.files}
        for path in self._folder.iterdir():
            if path.name.split(".")[0] not in wanted:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every download."""
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)

    def _tell(self, begun: int, total: int, name: str, here: int) -> None:
        self._progress(begun + here, total, name)

    def _is_complete(self, file: BundleFile) -> bool:
        """Whether the file is here as it was signed; the disk may have damaged what came earlier."""
        path = self.path(file.digest)
        return path.exists() and path.stat().st_size == file.size_bytes and _digest(path) == file.digest

    def _adopt(self, file: BundleFile, present: Iterable[Path]) -> bool:
        """Take the file from another place on this disk, if it is there."""
        for path in present:
            if path.is_file() and path.stat().st_size == file.size_bytes and _digest(path) == file.digest:
                beside = self.path(file.digest).with_suffix(".link")
                beside.unlink(missing_ok=True)
                os.link(path, beside)
                os.replace(beside, self.path(file.digest))
                return True
        return False

    def _check_space(self, missing: Iterable[BundleFile]) -> None:
        arrived = sum(self._arrived(file) for file in missing)
        needed = sum(file.size_bytes for file in missing) - arrived + _SPARE_BYTES
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise Unavailable(
                "DISK_FULL",
                f"the update needs {_megabytes(needed)} and {self._folder} has {_megabytes(free)} free: "
                f"free {_megabytes(needed - free)}, then the agent goes on by itself",
            )

    def _partial(self, file: BundleFile) -> Path:
        return self._folder / f"{file.digest.hex}.part"

    def _fetch(self, file: BundleFile, progress: Callable[[int], None]) -> None:
        failures = 0
        while True:
            resumed = self._arrived(file)
            try:
                self._receive(file, resumed, progress)
            except Unavailable:
                failures = failures + 1 if self._arrived(file) - resumed < _PROGRESS_BYTES else 1
                if failures >= _ATTEMPTS:
                    raise
                self._pause(min(_LONGEST_PAUSE_SECONDS, 0.5 * 2**failures))
                continue
            if self._finish(file):
                return
            if resumed == 0:
                raise Refused(
                    "BLOB_CHANGED",
                    f"{file.name} ({file.digest}) is not the file that was signed: the server's copy or the "
                    f"way to it changed it. Nothing was installed; the device keeps what it runs",
                )
            # What was resumed may have been damaged on this disk: once more from the start.

    def _arrived(self, file: BundleFile) -> int:
        path = self._partial(file)
        return path.stat().st_size if path.exists() else 0

    def _receive(self, file: BundleFile, offset: int, progress: Callable[[int], None]) -> None:
        if offset > file.size_bytes:
            self._partial(file).unlink()
            offset = 0
        if offset == file.size_bytes and offset > 0:
            return
        answer = self._source.open_blob(file.digest, offset)
        with open(self._partial(file), "r+b" if offset else "wb") as stream:
            stream.seek(answer.offset)
            stream.truncate()
            self._copy(answer, stream, file, progress)
            stream.flush()
            os.fsync(stream.fileno())

    def _copy(
        self, answer: BlobAnswer, stream: BinaryIO, file: BundleFile, progress: Callable[[int], None]
    ) -> None:
        arrived = answer.offset
        for chunk in answer.chunks:
            stream.write(chunk[: file.size_bytes - arrived])
            arrived += len(chunk)
            progress(min(arrived, file.size_bytes))
            if arrived > file.size_bytes:
                break
        if arrived < file.size_bytes:
            stream.flush()
            raise Unavailable("LINK_BROKE", f"{file.name} ended after {arrived} of {file.size_bytes} bytes")

    def _finish(self, file: BundleFile) -> bool:
        path = self._partial(file)
        if path.stat().st_size != file.size_bytes or _digest(path) != file.digest:
            path.unlink()
            return False
        path.chmod(0o444)  # slots share the file, and nothing is to write into it
        os.replace(path, self.path(file.digest))
        sync_folder(self._folder)
        return True


def _digest(path: Path) -> Digest:
    with open(path, "rb") as stream:
        return Digest(hashlib.file_digest(stream, "sha256").hexdigest())


def _megabytes(size: int) -> str:
    return f"{max(size, 1 << 20) / (1 << 20):.0f} MiB"
