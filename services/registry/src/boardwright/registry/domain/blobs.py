"""Blobs, uploads and references as values, and the policy for how long unused content lives.

A blob is stored once for the whole installation and visible per project: a project sees what was uploaded to
it. Visibility that nothing references lives until `keep_until_us`; every use renews it.
"""

from __future__ import annotations

from dataclasses import dataclass

from boardwright.content.digest import Digest

DAY_SECONDS = 24 * 3600
LARGEST_BYTES = 8 << 30
GRACE_SECONDS = 3 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class BlobPolicy:
    """Bounds of the Blobs API.

    Attributes:
        small_bytes: what one call may carry.
        largest_bytes: of one blob; a larger claim is refused before anything is read.
        grace_seconds: how long an unreferenced blob stays visible after its last use.
        claim_seconds: how long a blob that is being stored is safe from collection.
        upload_seconds: how long an upload may take, pauses included.
        request_seconds: how long a part's signed request holds.
    """

    small_bytes: int = 1 << 20
    largest_bytes: int = LARGEST_BYTES
    grace_seconds: int = GRACE_SECONDS
    claim_seconds: int = DAY_SECONDS
    upload_seconds: int = 3 * DAY_SECONDS
    request_seconds: int = 3600

    def keep_until_us(self, now_us: int) -> int:
        """Until when content that is used now stays, if nothing references it."""
        return now_us + self.grace_seconds * 1_000_000

    def renewal_due(self, keep_until_us: int, now_us: int) -> bool:
        """Whether a use is worth a write: once a tenth of the grace is gone."""
        return self.keep_until_us(now_us) - keep_until_us > self.grace_seconds * 100_000


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A blob as one project sees it."""

    project: str
    digest: Digest
    size_bytes: int
    created_us: int
    keep_until_us: int


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload: who sends which blob to which project, and the store's handle for it."""

    upload: str
    project: str
    principal: str
    digest: Digest
    size_bytes: int
    handle: str
    created_us: int
    expires_us: int
    completed: bool = False


@dataclass(frozen=True, slots=True)
class Condemned:
    """A blob that nobody sees any more and that is being deleted."""

    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection deleted, or would delete."""

    blobs: int
    bytes: int
    uploads: int
