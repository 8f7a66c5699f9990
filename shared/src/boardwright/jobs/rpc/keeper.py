"""Keeps step outputs through the registry's Blobs API."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from boardwright.api.registry.v1 import blobs_pb2 as pb
from boardwright.api.registry.v1 import blobs_pb2_grpc
from boardwright.rpc.errors import FailedPrecondition, NotFound, from_rpc_error


class BlobsKeeper:
    """An OutputKeeper over a channel to the registry; ``service`` prefixes its references' ids."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        self._blobs = blobs_pb2_grpc.BlobsStub(channel)
        self._service = service

    async def keep(self, project: str, reference: str, digests: Sequence[str]) -> None:
        """See ``boardwright.jobs.ports.OutputKeeper``."""
        name = f"projects/{project}/references/{self._service}-{reference}"
        held = pb.Reference(name=name, digests=digests)
        try:
            await self._blobs.SetReference(pb.SetReferenceRequest(reference=held))
        except grpc.RpcError as error:
            known = from_rpc_error(error)
            if isinstance(known, NotFound):
                raise FailedPrecondition(known.reason, known.message, **known.metadata) from error
            raise known from error
