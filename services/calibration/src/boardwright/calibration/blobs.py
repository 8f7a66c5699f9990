"""The project's blobs, through the registry's Blobs API."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.api.registry.v1 import blobs_pb2 as pb
from boardwright.api.registry.v1 import blobs_pb2_grpc as pb_grpc
from boardwright.calibration.service import MAX_PACK_BYTES
from boardwright.content.digest import Digest
from boardwright.rpc.client import connect, connect_sync
from boardwright.rpc.errors import NotFound, from_rpc_error

if TYPE_CHECKING:
    from boardwright.content.transfer import BlobTransfer

_AT_A_TIME = 16


class RegistryBlobs:
    """Implements `ports.Blobs` with the service's token, on behalf of the caller.

    Connects when first used.
    """

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint = endpoint
        self._token = token
        self._stub: Any = None
        self._transfer_of = lru_cache(maxsize=8)(self._make_transfer)

    async def sizes(self, project: str, digests: Collection[str], actor: str) -> dict[str, int]:
        stub, limit = self._blobs(), asyncio.Semaphore(_AT_A_TIME)

        async def size(digest: str) -> int | None:
            async with limit:
                request = pb.GetBlobRequest(name=f"projects/{project}/blobs/{digest}")
                try:
                    return int((await _call(stub.GetBlob, request, actor)).size_bytes)
                except NotFound:
                    return None

        found = await asyncio.gather(*(size(digest) for digest in digests))
        return {digest: size for digest, size in zip(digests, found, strict=True) if size is not None}

    async def fetch(self, project: str, digest: str, path: Path, actor: str) -> None:
        transfer = self._transfer_of(actor)
        await asyncio.to_thread(
            transfer.download, project, Digest.parse(digest), path, max_bytes=MAX_PACK_BYTES
        )

    async def store(self, project: str, path: Path, actor: str) -> str:
        blob = await asyncio.to_thread(self._transfer_of(actor).upload, project, path)
        return str(blob.digest)

    async def hold(self, project: str, reference: str, digests: Collection[str], actor: str) -> None:
        named = pb.Reference(name=f"projects/{project}/references/{reference}", digests=sorted(digests))
        await _call(self._blobs().SetReference, pb.SetReferenceRequest(reference=named), actor)

    def _blobs(self) -> Any:
        if self._stub is None:
            self._stub = pb_grpc.BlobsStub(connect(self._endpoint, token=self._token))
        return self._stub

    def _make_transfer(self, actor: str) -> BlobTransfer:
        from boardwright.content.transfer import BlobTransfer

        channel = connect_sync(self._endpoint, token=self._token, principal=actor)
        return BlobTransfer(pb_grpc.BlobsStub(channel))


async def _call(method: Any, request: Any, actor: str) -> Any:
    """Call the registry on behalf of an actor. Raises: BoardwrightError."""
    import grpc

    try:
        return await method(request, metadata=(("x-boardwright-principal", actor),))
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
