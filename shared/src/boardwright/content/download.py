"""Downloads by signed request: resumable, hashed as they come, visible only when whole and right."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import HTTPError

from boardwright.content.digest import Digest
from boardwright.content.errors import DigestMismatch, StoreUnavailable, cause_of
from boardwright.content.hashing import BackgroundHasher
from boardwright.content.store import CHUNK_BYTES

_PARTIAL_DIGITS = 16


def partial_path(path: Path, digest: Digest) -> Path:
    """Where the beginning of a download lies until it is whole."""
    return path.with_name(f"{path.name}.{digest.hex[:_PARTIAL_DIGITS]}.part")


class Downloads:
    """Fetches blobs over a connection pool.

    Args:
        pool: the connections.
    """

    def __init__(self, pool: PoolManager) -> None:
        self._pool = pool

    def fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        digest: Digest,
        size_bytes: int,
        path: Path,
        tell: Callable[[int], None],
    ) -> None:
        """Write a blob to `path`.

        Args:
            url: of a signed GET request, which honours `Range`.
            headers: of that request.
            digest: of the blob.
            size_bytes: of the blob; more is never read.
            path: the file, replaced in one step at the end.
            tell: told how many bytes are here.

        Raises:
            DigestMismatch: other bytes came; nothing of them is kept.
            StoreUnavailable: the store is away or refused; what came is kept for the next call.
            OSError: the file cannot be written.
        """
        partial = partial_path(path, digest)
        with BackgroundHasher() as hasher, _open_locked(partial) as file:
            at = _rehash(file, hasher)
            tell(min(at, size_bytes))
            if at < size_bytes:
                self._receive(url, headers, file, hasher, at, size_bytes, tell)
            if hasher.digest() != digest:
                partial.unlink(missing_ok=True)
                raise DigestMismatch(f"what came is not {digest}: download it again")
        try:
            os.replace(partial, path)
        except FileNotFoundError:
            if not path.exists():  # else another download of the same blob was faster by a moment
                raise

    def _receive(
        self,
        url: str,
        headers: Mapping[str, str],
        file: BinaryIO,
        hasher: BackgroundHasher,
        at: int,
        size_bytes: int,
        tell: Callable[[int], None],
    ) -> None:
        fields = {**headers, "Range": f"bytes={at}-"} if at else dict(headers)
        try:
            answer = self._pool.request("GET", url, headers=fields, preload_content=False)
            with contextlib.closing(answer):
                self._check(answer, 206 if at else 200)
                while at < size_bytes and (chunk := answer.read(min(CHUNK_BYTES, size_bytes - at))):
                    hasher.update(chunk)
                    _write(file, chunk)
                    at += len(chunk)
                    tell(at)
                answer.release_conn()
        except HTTPError as error:
            raise StoreUnavailable(
                f"the download broke off at {at} of {size_bytes} bytes ({cause_of(error)}): "
                "run it again to go on"
            ) from error
        if at < size_bytes:
            raise StoreUnavailable(f"the download ended at {at} of {size_bytes} bytes: run it again")

    def _check(self, answer: BaseHTTPResponse, wanted: int) -> None:
        if answer.status != wanted:
            text = answer.read(500).decode("utf-8", "replace")
            raise StoreUnavailable(f"the store refused a download ({answer.status} {text}): run it again")


def _rehash(file: BinaryIO, hasher: BackgroundHasher) -> int:
    """Hash what an earlier download left; returns how much that is."""
    file.seek(0)
    at = 0
    while chunk := file.read(CHUNK_BYTES):
        hasher.update(chunk)
        at += len(chunk)
    return at


def _write(file: BinaryIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def _open_locked(partial: Path) -> BinaryIO:
    """The file, ours alone where the system has locks: two downloads of one blob to one place take turns."""
    while True:
        file = partial.open("a+b", buffering=0)
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), partial.stat()):
                return file
        except ImportError:
            return file
        except FileNotFoundError:
            pass  # whoever had it finished or dropped it while we waited
        except BaseException:
            file.close()
            raise
        file.close()
