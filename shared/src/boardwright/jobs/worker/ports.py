"""What the worker needs from outside: blobs in and out, and the service that leased a step."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from boardwright.jobs.domain.blobs import Blob


class BlobTransfer(Protocol):
    """Moves blobs of one project under a lease's grant; everything is verified by digest."""

    async def fetch(self, project: str, blob: Blob, path: Path, grant: str) -> None:
        """Write the blob's content to ``path``.

        Raises:
            BoardwrightError: the registry refused (NotFound BLOB_NOT_FOUND) or is away (Unavailable).
            ContentError: the store is away, or what came is not what the digest says.
        """
        ...

    async def store(self, project: str, content: Path | bytes, media_type: str, grant: str) -> Blob:
        """Upload content; returns its blob.

        Raises:
            BoardwrightError: the registry refused (ResourceExhausted STORE_FULL) or is away (Unavailable).
            ContentError: the store is away.
        """
        ...
