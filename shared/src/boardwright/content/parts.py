"""How the directory store takes the bytes of one part."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from boardwright.content.errors import SizeMismatch, UploadNotFound
from boardwright.content.file_errors import store_errors

_WRITE_BITS = 0o222


class PartWriter:
    """Writes one part of an upload to its place; the part counts only once `finish` returned."""

    def __init__(self, root: Path, folder: Path, number: int, offset: int, length: int) -> None:
        self._root = root
        self._marker = folder / f"part-{number}"
        self._number = number
        self._at = offset
        self._end = offset + length
        with store_errors(root):
            try:
                # Sent again: until all of it is here, the part is not.
                self._marker.unlink(missing_ok=True)
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
        with store_errors(self._root):
            fcntl.flock(self._file, fcntl.LOCK_SH)
            try:
                if not os.fstat(self._file).st_mode & _WRITE_BITS:
                    raise UploadNotFound("the upload is sealed and takes no more parts")
                while view:
                    count = os.pwrite(self._file, view, self._at)
                    self._at += count
                    view = view[count:]
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def finish(self) -> None:
        """Declare the part whole.

        Raises:
            SizeMismatch: bytes are missing.
            UploadNotFound: the upload was given up meanwhile.
        """
        if self.remaining_bytes:
            raise SizeMismatch(f"part {self._number} came {self.remaining_bytes} bytes short: send it again")
        with store_errors(self._root):
            try:
                self._marker.touch()
            except FileNotFoundError:
                raise UploadNotFound("the upload was given up: begin a new one") from None

    def close(self) -> None:
        """Let go of the file; what was not finished does not count."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
