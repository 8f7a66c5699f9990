"""What the Blobs API needs of its database (`storage/blobs.py`). A method writes in one transaction."""

from __future__ import annotations

from typing import Protocol

from boardwright.content.digest import Digest
from boardwright.registry.domain.blobs import BlobRecord, Condemned, UploadRecord


class BlobRepository(Protocol):
    """Which blobs exist, who sees them, and what keeps them. Every method may raise DatabaseUnavailable."""

    async def find(self, project: str, digest: Digest) -> BlobRecord | None:
        """The blob, if this project sees it."""
        ...

    async def renew(self, project: str, digest: Digest, keep_until_us: int) -> bool:
        """Keep the blob visible at least until then; False if it is not visible (any more)."""
        ...

    async def claim(self, digest: Digest, size_bytes: int, now_us: int, claim_until_us: int) -> bool:
        """Announce that this blob is about to be stored; False while a collection deletes it."""
        ...

    async def publish(
        self, project: str, digest: Digest, size_bytes: int, now_us: int, keep_until_us: int, upload: str = ""
    ) -> BlobRecord:
        """Show a stored blob to a project, and mark the upload that brought it as completed."""
        ...

    async def add_upload(self, record: UploadRecord) -> None:
        """Remember an upload."""
        ...

    async def upload(self, project: str, upload: str) -> UploadRecord | None:
        """An upload by its id."""
        ...

    async def open_upload(
        self, project: str, principal: str, digest: Digest, size_bytes: int, now_us: int
    ) -> UploadRecord | None:
        """The upload that this principal began for this blob and neither completed nor let expire."""
        ...

    async def remove_upload(self, upload: str) -> None:
        """Forget an upload; fine if it is gone."""
        ...

    async def expired_uploads(self, now_us: int, limit: int) -> list[UploadRecord]:
        """Uploads whose time is over."""
        ...

    async def set_reference(
        self, project: str, reference: str, digests: frozenset[Digest], keep_until_us: int
    ) -> list[Digest]:
        """Let a reference hold exactly these blobs.

        Returns those that the project does not see; if there is one, nothing was changed. What the reference
        let go of lives at least until `keep_until_us`.
        """
        ...

    async def collectable(self, now_us: int) -> tuple[int, int, int]:
        """How many blobs, bytes and uploads a collection would delete."""
        ...

    async def condemn(
        self, now_us: int, takeover_us: int, after: str, limit: int
    ) -> tuple[list[Condemned], str]:
        """Look at the next `limit` blobs after a digest ("" for the first): hide what nobody keeps and mark
        it for deletion; take over what was marked before `takeover_us`.

        Returns what is to be deleted, and the digest to go on after, "" at the end.
        """
        ...

    async def bury(self, digest: Digest) -> None:
        """Forget a condemned blob, whose content is deleted."""
        ...
