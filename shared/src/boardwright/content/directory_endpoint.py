"""What a directory store's signed requests mean, free of any web framework; `directory_app` is one around it.

PUT  /parts/<handle>/<number>?…     one part of an upload, of exactly its length
GET  /blobs/sha256:<hex>?…          a blob or one range of it (HEAD too)
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from boardwright.content.canonical import canonical_json
from boardwright.content.digest import Digest
from boardwright.content.directory import DirectoryStore
from boardwright.content.errors import (
    BlobNotFound,
    ContentError,
    DigestMismatch,
    InvalidContent,
    SizeMismatch,
    StoreFull,
    StoreUnavailable,
    UploadNotFound,
)
from boardwright.content.file_range import FileRange
from boardwright.content.parts import PartWriter
from boardwright.content.signing import RequestRefused, check_request
from boardwright.content.store import DEFAULT_MEDIA_TYPE

PROBLEM_MEDIA_TYPE = "application/problem+json"

_PART = re.compile(r"/parts/([0-9a-f]{32})/([0-9]{1,5})")
_BLOB = re.compile(r"/blobs/(sha256:[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class LengthRequired(ContentError):
    """The request does not say how long its body is."""


class RangeNotSatisfiable(ContentError):
    """The range lies outside the blob."""


class NoSuchPath(ContentError):
    """Nothing is served there, or not with this method."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as HTTP tells it (RFC 9457).

    Attributes:
        status: HTTP status.
        reason: stable, for programs.
        detail: for people.
    """

    status: int
    reason: str
    detail: str

    def body(self) -> bytes:
        """The problem document."""
        return canonical_json(
            {"type": "about:blank", "status": self.status, "reason": self.reason, "detail": self.detail}
        )


_PROBLEMS: tuple[tuple[type[ContentError], int, str], ...] = (
    (RequestRefused, 403, "REQUEST_REFUSED"),
    (UploadNotFound, 404, "UPLOAD_NOT_FOUND"),
    (BlobNotFound, 404, "BLOB_NOT_FOUND"),
    (NoSuchPath, 404, "NO_SUCH_PATH"),
    (LengthRequired, 411, "LENGTH_REQUIRED"),
    (SizeMismatch, 400, "SIZE_MISMATCH"),
    (InvalidContent, 400, "INVALID_CONTENT"),
    (RangeNotSatisfiable, 416, "RANGE_NOT_SATISFIABLE"),
    (DigestMismatch, 500, "DIGEST_MISMATCH"),
    (StoreFull, 507, "STORE_FULL"),
    (StoreUnavailable, 503, "STORE_UNAVAILABLE"),
)


def problem_of(error: ContentError) -> Problem:
    """How HTTP tells an error of this package."""
    for kind, status, reason in _PROBLEMS:
        if isinstance(error, kind):
            return Problem(status, reason, str(error))
    return Problem(500, "CONTENT_ERROR", str(error))


@dataclass(frozen=True, slots=True)
class Download:
    """An answer to a GET or HEAD.

    Attributes:
        status: 200 or 206.
        headers: of the answer.
        body: what follows, to be closed; None for HEAD.
    """

    status: int
    headers: Mapping[str, str]
    body: FileRange | None


class DirectoryEndpoint:
    """Checks signed requests and carries them out on a store. Its methods block on the disk alone.

    Args:
        store: the store that signed the requests, or another process's on the same folder.
        signing_key: the one that they were signed with.
        clock: seconds since the epoch.
    """

    def __init__(
        self, store: DirectoryStore, signing_key: bytes, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._key = signing_key
        self._clock = clock

    def receive_part(
        self, method: str, path: str, query: Mapping[str, str], content_length: int | None
    ) -> PartWriter:
        """Where the body of this request goes: write all of it, then `finish()`; `close()` in any case.

        Raises:
            NoSuchPath: it is no PUT of a part.
            RequestRefused: the request is forged or expired.
            LengthRequired: it does not tell its length.
            SizeMismatch: its length is not the part's.
            UploadNotFound: the upload is sealed, given up or unknown.
        """
        match = _PART.fullmatch(path)
        if method != "PUT" or match is None:
            raise NoSuchPath(f"there is nothing to {method} here")
        check_request(self._key, method, path, query, clock=self._clock)
        if content_length is None:
            raise LengthRequired("a part needs a Content-Length")
        handle, number = match[1], int(match[2])
        wanted = self._store.upload_plan(handle).length(number)
        if content_length != wanted:
            raise SizeMismatch(f"part {number} has {wanted} bytes, not {content_length}")
        return self._store.write_part(handle, number)

    def download(
        self, method: str, path: str, query: Mapping[str, str], range_header: str | None = None
    ) -> Download:
        """The answer to a request for a blob.

        Raises:
            NoSuchPath: it is no GET or HEAD of a blob.
            RequestRefused: the request is forged or expired.
            BlobNotFound: the blob was deleted meanwhile.
            RangeNotSatisfiable: the range begins behind the end.
        """
        match = _BLOB.fullmatch(path)
        if method not in ("GET", "HEAD") or match is None:
            raise NoSuchPath(f"there is nothing to {method} here")
        fields = check_request(self._key, method, path, query, clock=self._clock)
        digest = Digest.parse(match[1])
        found = self._store.stat(digest)
        if found is None:
            raise BlobNotFound(f"there is no blob {digest}")
        size = found.size_bytes
        wanted = _range(range_header, size)
        start, end = wanted or (0, size)
        headers = {
            "Content-Type": fields.get("media_type", DEFAULT_MEDIA_TYPE),
            "Content-Length": str(end - start),
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
            "Cache-Control": "private, max-age=31536000, immutable",
            # Blobs are other people's bytes: no browser shall run them in the gateway's name.
            "Content-Disposition": "attachment",
            "Content-Security-Policy": "sandbox",
            "X-Content-Type-Options": "nosniff",
        }
        if wanted is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        # Who downloads, verifies.
        body = self._store.open_range(digest, start, end) if method == "GET" else None
        return Download(206 if wanted else 200, headers, body)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and end of the one range that a header asks for; None for the whole blob (RFC 9110, 14.2)."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        end = min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= end:
        raise RangeNotSatisfiable(f"the blob has {size} bytes: {header} is behind its end")
    return start, end
