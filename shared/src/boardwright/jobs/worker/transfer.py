"""Blobs in and out through the registry, under each lease's own grant."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from boardwright.content import Digest
from boardwright.jobs.domain.blobs import Blob

if TYPE_CHECKING:
    from boardwright.content.transfer import BlobTransfer, Progress

_T = TypeVar("_T")


class _GivenUp(Exception):
    """Ends a transfer in its thread once nobody waits for it."""


class RegistryTransfer:
    """See ``boardwright.jobs.worker.ports.BlobTransfer``; ``registry`` is its "host:port".

    Transfers are synchronous and run in threads; each grant has a channel of its own, closed when done.
    """

    def __init__(self, registry: str) -> None:
        self._registry = registry

    async def fetch(self, project: str, blob: Blob, path: Path, grant: str) -> None:
        """Write the blob's content to ``path``, verified."""

        def fetch(transfer: BlobTransfer, progress: Progress) -> None:
            transfer.download(project, Digest.parse(blob.digest), path, progress=progress)

        await self._in_thread(grant, fetch)

    async def store(self, project: str, content: Path | bytes, media_type: str, grant: str) -> Blob:
        """Upload content; what is there already does not travel."""

        def store(transfer: BlobTransfer, progress: Progress) -> Blob:
            stored = transfer.upload(project, content, progress=progress)
            return Blob(stored.digest, stored.size_bytes, media_type)

        return await self._in_thread(grant, store)

    async def _in_thread(self, grant: str, move: Callable[[BlobTransfer, Progress], _T]) -> _T:
        given_up = threading.Event()

        def progress(done_bytes: int, total_bytes: int, what: str) -> None:
            if given_up.is_set():
                raise _GivenUp

        def run() -> _T:
            # Loaded when first used: an idle worker stays small.
            from boardwright.api.registry.v1 import blobs_pb2_grpc
            from boardwright.content.transfer import BlobTransfer
            from boardwright.rpc.client import connect_sync

            with connect_sync(self._registry, token=grant) as channel:
                transfer = BlobTransfer(blobs_pb2_grpc.BlobsStub(channel))
                try:
                    return move(transfer, progress)
                finally:
                    transfer.close()

        try:
            return await asyncio.to_thread(run)
        finally:
            given_up.set()
