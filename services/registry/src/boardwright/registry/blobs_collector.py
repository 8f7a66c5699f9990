"""Collection: deletes blobs that nobody kept for the grace period, and uploads whose time is over.

The order makes it safe: a blob is *condemned* in the database (nobody sees it, and whoever wants to store it
has to wait), then deleted from the store, then its row is *buried*.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from boardwright.content import BlobStore
from boardwright.registry.blobs_ports import BlobRepository
from boardwright.registry.domain.blobs import BlobPolicy, Collected, UploadRecord

_log = logging.getLogger(__name__)

_BATCH = 500
# A collector that has not deleted a condemned blob for this long is dead: its requests have timed out.
_TAKEOVER_SECONDS = 600
# So long one deletes what it condemned; the rest is left to whoever takes it over. Deleting beside that one
# could meet a blob that was stored again.
_DELETING_SECONDS = 300
_SWEEP_SECONDS = 24 * 3600


class BlobCollector:
    """Collects; several may run at a time.

    Args:
        repository: knows what is kept.
        store: holds the content.
        policy: how long unused content lives.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        repository: BlobRepository,
        store: BlobStore,
        policy: BlobPolicy | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._store = store
        self._policy = policy or BlobPolicy()
        self._clock = clock
        self._swept_us = 0

    async def collect(self, *, validate_only: bool = False) -> Collected:
        """Delete what nobody kept for the grace period, and uploads whose time is over."""
        now = self._now_us()
        if validate_only:
            return Collected(*await self._repository.collectable(now))
        uploads = 0
        while expired := await self._repository.expired_uploads(now, _BATCH):
            for record in expired:
                await self._drop(record)
            uploads += len(expired)
        blobs = size_bytes = 0
        after = ""
        while True:
            began = self._now_us()
            condemned, after = await self._repository.condemn(
                began, began - _TAKEOVER_SECONDS * 1_000_000, after, _BATCH
            )
            for each in condemned:
                if self._now_us() > began + _DELETING_SECONDS * 1_000_000:
                    break
                await asyncio.to_thread(self._store.delete, each.digest)
                await self._repository.bury(each.digest)
                blobs += 1
                size_bytes += each.size_bytes
            if not after:
                break
            await asyncio.sleep(0)  # where nothing is to be deleted, nothing else lets others go first
        swept = await self._sweep(now)
        if blobs or uploads or swept:
            _log.info("collected", extra={"blobs": blobs, "uploads": uploads, "leftovers": swept})
        return Collected(blobs, size_bytes, uploads)

    async def collect_forever(self, every_seconds: float) -> None:
        """Collect now and then, not at once; an outage of store or database only delays it."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await self.collect()
            except Exception:
                _log.exception("collection failed; it is tried again later")

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)

    async def _sweep(self, now: int) -> int:
        # Leftovers that no row knows of are rare, and on S3 looking for them reads every blob's entry.
        if now - self._swept_us < _SWEEP_SECONDS * 1_000_000:
            return 0
        # Older than any upload that can still be under way.
        swept = await asyncio.to_thread(self._store.sweep, now - 2 * self._policy.upload_seconds * 1_000_000)
        self._swept_us = now
        return swept

    async def _drop(self, record: UploadRecord) -> None:
        await asyncio.to_thread(self._store.abort_upload, record.handle)
        await self._repository.remove_upload(record.upload)
