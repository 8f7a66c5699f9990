"""The BlobStore port: what every store promises, whatever holds its bytes.

The promises, which `boardwright.testing.blob_store` checks on every implementation:

- A blob is visible only after all of its bytes were read back and hashed to its digest.
- A visible blob is never overwritten: a late writer, a replayed request or a second push changes nothing.
- What `put` or `finish_upload` returned survives SIGKILL of every process, and power loss as far as the
  medium keeps what it acknowledged.
- A blob is stored once, however often it is pushed.
- `StoreUnavailable` and `StoreFull` leave nothing half-visible, and the same call succeeds later.
- `StoreUnavailable` is never reported as "not found".

Whoever may call the store may read everything in it: who may read what is the registry's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from boardwright.content.digest import Digest
from boardwright.content.errors import DigestMismatch, InvalidContent

CHUNK_BYTES = 1 << 20
"""How much `BlobStore.open` yields at a time."""

SMALLEST_PART_BYTES = 8 << 20
MOST_PARTS = 10_000
LARGEST_BLOB_BYTES = 5 << 40
"""S3's own limit for one object."""

DEFAULT_MEDIA_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class BlobStat:
    """What a store knows of a visible blob.

    Attributes:
        digest: its name.
        size_bytes: its length.
        stored_at_us: when it became visible, microseconds since the epoch, by the store's clock.
    """

    digest: Digest
    size_bytes: int
    stored_at_us: int


@dataclass(frozen=True, slots=True)
class UploadStat:
    """What a store knows of an upload that is neither finished nor given up.

    Attributes:
        handle: what `begin_upload` returned.
        started_at_us: when it began, microseconds since the epoch, by the store's clock.
    """

    handle: str
    started_at_us: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part that arrived whole.

    Attributes:
        number: from 1.
        size_bytes: its length.
    """

    number: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """An HTTP request that whoever holds it may send once or many times, until it expires.

    Attributes:
        method: "GET" or "PUT".
        url: absolute.
        headers: must be sent exactly so.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How the bytes of an upload are split into parts: all of `part_bytes`, but the last.

    Attributes:
        size_bytes: of the whole blob.
        part_bytes: of every part but the last.
    """

    size_bytes: int
    part_bytes: int

    @property
    def count(self) -> int:
        """How many parts there are; an empty blob has one empty part."""
        return max(1, -(-self.size_bytes // self.part_bytes))

    def offset(self, number: int) -> int:
        """Where the part with this number (from 1) begins.

        Raises:
            InvalidContent: there is no such part.
        """
        if not 1 <= number <= self.count:
            raise InvalidContent(f"part {number} of {self.count} does not exist")
        return (number - 1) * self.part_bytes

    def length(self, number: int) -> int:
        """How many bytes the part with this number (from 1) has.

        Raises:
            InvalidContent: there is no such part.
        """
        return min(self.part_bytes, self.size_bytes - self.offset(number))


def part_plan(size_bytes: int) -> PartPlan:
    """The rule that splits every upload: parts of 8 MiB, larger only where there would be over 10,000.

    Raises:
        InvalidContent: the size is negative or over 5 TiB.
    """
    if not 0 <= size_bytes <= LARGEST_BLOB_BYTES:
        raise InvalidContent(f"a blob of {size_bytes} bytes is impossible: it has 0 to {LARGEST_BLOB_BYTES}")
    part_bytes = SMALLEST_PART_BYTES
    while part_bytes * MOST_PARTS < size_bytes:
        part_bytes *= 2
    return PartPlan(size_bytes, part_bytes)


def range_end(digest: Digest, size_bytes: int, offset: int, length: int | None) -> int:
    """Where the bytes end that `BlobStore.open` was asked for.

    Raises:
        InvalidContent: the offset or the length is negative, or the offset lies behind the end.
    """
    if offset < 0 or offset > size_bytes or (length is not None and length < 0):
        raise InvalidContent(f"{digest} has {size_bytes} bytes: {offset} and {length} name no range of them")
    return size_bytes if length is None else min(size_bytes, offset + length)


def check_digest(wanted: Digest | None, found: Digest) -> None:
    """Raises: DigestMismatch, unless the bytes have the digest that was given with them, if one was."""
    if wanted is not None and wanted != found:
        raise DigestMismatch(f"these bytes are {found}, not {wanted}; nothing was kept")


class BlobStore(Protocol):
    """Blobs by digest. Every method blocks and may be called from many threads at a time.

    Every method may raise `StoreUnavailable`; those that write may raise `StoreFull`.
    """

    def stat(self, digest: Digest) -> BlobStat | None:
        """What is known of a blob, or None if it is not visible."""
        ...

    def open(self, digest: Digest, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield a blob's bytes in chunks of at most `CHUNK_BYTES`, from `offset`, at most `length` of them.

        When the whole blob is read, its digest is checked along the way.

        Raises:
            BlobNotFound: there is none.
            InvalidContent: the offset or the length is negative, or the offset lies behind the end.
            DigestMismatch: at the end, when the medium changed the bytes.
        """
        ...

    def read(self, digest: Digest, max_bytes: int) -> bytes:
        """A whole blob, verified.

        Raises:
            BlobNotFound: there is none.
            BlobTooLarge: it has more than `max_bytes`; nothing was read.
            DigestMismatch: the medium changed the bytes.
        """
        ...

    def put(self, data: bytes | BinaryIO | Path, digest: Digest | None = None) -> BlobStat:
        """Store bytes, a stream (read to its end from where it stands) or a file; again changes nothing.

        Raises:
            DigestMismatch: `digest` was given and the bytes have another one.
            OSError: the stream or the file cannot be read.
        """
        ...

    def delete(self, digest: Digest) -> None:
        """Make a blob invisible and free its room. Deleting what is not there is fine."""
        ...

    def blobs(self) -> Iterator[BlobStat]:
        """Every visible blob, in no order; those stored or deleted meanwhile may be in it or not."""
        ...

    def begin_upload(self, size_bytes: int) -> str:
        """Open a place for the parts of one blob (`part_plan(size_bytes)`); returns its handle.

        Raises:
            InvalidContent: the size is impossible.
        """
        ...

    def part_request(self, handle: str, number: int, expires_seconds: int) -> SignedRequest:
        """The request with which a client sends part `number` (from 1) straight to the store.

        The body must be exactly the part's bytes; one of another length does not count. Sending the same
        bytes again changes nothing. Of two different bodies either may be taken: the digest decides.

        Raises:
            UploadNotFound: the handle is unknown, finished or given up.
            InvalidContent: there is no such part.
        """
        ...

    def received_parts(self, handle: str) -> list[Part]:
        """The parts that arrived whole, by number.

        Raises:
            UploadNotFound: the handle is unknown or given up.
        """
        ...

    def finish_upload(self, handle: str, digest: Digest, size_bytes: int) -> BlobStat:
        """Read what was sent; if it is `digest`, make it visible.

        May be called again after `StoreUnavailable` and `StoreFull`, and after success until `abort_upload`.

        Raises:
            UploadNotFound: the handle is unknown or given up (or a repeated call finds that its bytes were
                already stored once and dropped): begin a new upload.
            SizeMismatch: parts are missing; those that arrived stay, the upload goes on.
            DigestMismatch: the bytes have another digest; the upload is given up.
        """
        ...

    def abort_upload(self, handle: str) -> None:
        """Give an upload up and free its room; a blob that it made visible stays. Repeating is fine."""
        ...

    def uploads(self) -> Iterator[UploadStat]:
        """Every upload that was neither finished nor given up, in no order."""
        ...

    def download_request(
        self, digest: Digest, expires_seconds: int, media_type: str = DEFAULT_MEDIA_TYPE
    ) -> SignedRequest:
        """The request with which a client reads a blob straight from the store; `Range` may be added.

        Raises:
            BlobNotFound: there is none.
        """
        ...

    def sweep(self, older_than_us: int) -> int:
        """Remove leftovers of killed processes that are older than this (microseconds since the epoch).

        Open uploads that began before it are given up. Visible blobs are never touched. Returns how many
        leftovers went.
        """
        ...

    def close(self) -> None:
        """Free connections. The store is not used afterwards."""
        ...
