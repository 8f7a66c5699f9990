"""How the directory store takes the bytes of one part."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boardwright.content.arrivals import ArrivalHashes, part_marker
from boardwright.content.errors import SizeMismatch, UploadNotFound
from boardwright.content.file_errors import store_errors
from boardwright.content.store import PartPlan

_WRITE_BITS = 0o222


class PartWriter:
    """Writes one part of an upload to its place; the part counts only once `finish` returned.

    A part that is whole stays as it is: of who sends it again, or was still sending it, nothing is written.
    Each write looks for that under a shared flock, and the part becomes whole under an exclusive one.
    """

    def __init__(
        self, root: Path, folder: Path, plan: PartPlan, number: int, arrivals: ArrivalHashes
    ) -> None:
        self._root = root
        self._folder = folder
        self._marker = part_marker(folder, number)
        self._plan = plan
        self._number = number
        self._arrivals = arrivals
        self._at = plan.offset(number)
        self._end = self._at + plan.length(number)
        with store_errors(root):
            try:
                self._file = os.open(folder / "data", os.O_WRONLY | os.O_CLOEXEC)
            except (FileNotFoundError, PermissionError):
                raise UploadNotFound(f"upload {folder.name} takes no more parts: begin a new one") from None

    @property
    def remaining_bytes(self) -> int:
        """How much of the part has yet to come."""
        return self._end - self._at

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write what comes next.

        Raises:
            SizeMismatch: it is more than the part has; nothing of it was written.
            UploadNotFound: the upload was sealed or given up meanwhile.
        """
        view = memoryview(data)
        if len(view) > self.remaining_bytes:
            raise SizeMismatch(f"part {self._number} has {self._end - self._at} bytes left, {len(view)} came")
        with store_errors(self._root), self._locked(fcntl.LOCK_SH):
            if not os.fstat(self._file).st_mode & _WRITE_BITS:
                raise UploadNotFound("the upload is sealed and takes no more parts")
            if self._marker.exists():
                self._at += len(view)
                return
            while view:
                count = os.pwrite(self._file, view, self._at)
                self._at += count
                view = view[count:]

    def finish(self) -> None:
        """Declare the part whole, and take its hash where its turn has come.

        Raises:
            SizeMismatch: bytes are missing.
            UploadNotFound: the upload was given up meanwhile.
        """
        if self.remaining_bytes:
            raise SizeMismatch(f"part {self._number} came {self.remaining_bytes} bytes short: send it again")
        with store_errors(self._root), self._locked(fcntl.LOCK_EX):
            try:
                self._marker.touch(exist_ok=False)
            except FileExistsError:
                return
            except FileNotFoundError:
                raise UploadNotFound("the upload was given up: begin a new one") from None
        self._arrivals.part_arrived(self._folder, self._plan)

    def close(self) -> None:
        """Let go of the file; what was not finished does not count."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        fcntl.flock(self._file, how)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
