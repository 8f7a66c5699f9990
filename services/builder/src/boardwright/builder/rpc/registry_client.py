"""The registry, over gRPC, on behalf of whoever asked."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc

from boardwright.api.registry.v1 import blobs_pb2, blobs_pb2_grpc, registry_pb2, registry_pb2_grpc
from boardwright.builder.ports import BuiltArtifact, NewArtifact, NewMeasurement, SourceVariant
from boardwright.builder.rpc.convert import from_artifact, to_artifact, to_measurement
from boardwright.content import Digest
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.job import Step
from boardwright.rpc.errors import ResourceExhausted, from_rpc_error

MAX_DOCUMENT_BYTES = 64 << 20

_T = TypeVar("_T")


class RegistryClient:
    """``Registry`` over a channel to the registry."""

    def __init__(self, channel: grpc.aio.Channel, download: Callable[[str, str, Path], None]) -> None:
        self._registry = registry_pb2_grpc.RegistryStub(channel)
        self._blobs = blobs_pb2_grpc.BlobsStub(channel)
        self._download = download

    async def variant(self, actor: str, name: str) -> SourceVariant:
        """See ``Registry``."""
        variant = await _call(self._registry.GetVariant, registry_pb2.GetVariantRequest(name=name), actor)
        parent = variant.name.rpartition("/variants/")[0]
        request = registry_pb2.GetModelVersionRequest(name=parent)
        version = await _call(self._registry.GetModelVersion, request, actor)
        graph = variant.graph
        return SourceVariant(
            name=variant.name,
            graph=Blob(graph.digest, graph.size_bytes, graph.media_type),
            quantization_profile=variant.quantization_profile,
            version=version.name,
            input_spec_json=version.input_spec_json,
            traceparent=version.traceparent,
        )

    async def artifact(self, actor: str, name: str) -> BuiltArtifact:
        """See ``Registry``."""
        request = registry_pb2.GetArtifactRequest(name=name)
        return from_artifact(await _call(self._registry.GetArtifact, request, actor))

    async def put_document(self, actor: str, project: str, content: bytes, media_type: str) -> Blob:
        """See ``Registry``."""
        request = blobs_pb2.CreateBlobRequest(parent=f"projects/{project}", data=content)
        stored = await _call(self._blobs.CreateBlob, request, actor)
        return Blob(stored.digest, stored.size_bytes, media_type)

    async def read_document(self, actor: str, project: str, digest: str) -> bytes:
        """See ``Registry``; what is too large for one answer is downloaded."""
        name = f"projects/{project}/blobs/{digest}"
        try:
            answer = await _call(self._blobs.ReadBlob, blobs_pb2.ReadBlobRequest(name=name), actor)
            return bytes(answer.data)
        except ResourceExhausted as error:
            if error.reason != "BLOB_TOO_LARGE":
                raise
        known = await self.blob(actor, project, digest, "")
        if known.size_bytes > MAX_DOCUMENT_BYTES:
            raise ResourceExhausted(
                "BLOB_TOO_LARGE", f"{digest} is {known.size_bytes} bytes; a manifest has at most 64 MiB."
            )
        return await asyncio.to_thread(self._read_large, project, digest)

    def _read_large(self, project: str, digest: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="boardwright-builder-") as folder:
            path = Path(folder) / "document"
            self._download(project, digest, path)
            return path.read_bytes()

    async def blob(self, actor: str, project: str, digest: str, media_type: str) -> Blob:
        """See ``Registry``."""
        request = blobs_pb2.GetBlobRequest(name=f"projects/{project}/blobs/{digest}")
        known = await _call(self._blobs.GetBlob, request, actor)
        return Blob(known.digest, known.size_bytes, media_type)

    async def record_step(self, actor: str, project: str, step: Step) -> None:
        """See ``Registry``."""
        outcome = step.outcome
        if outcome is None or not outcome.record:
            return
        request = registry_pb2.RecordStepRequest(
            parent=f"projects/{project}",
            record_digest=outcome.record,
            kind=step.spec.kind,
            inputs={name: blob.digest for name, blob in step.inputs.items()},
            outputs={name: blob.digest for name, blob in outcome.outputs.items()},
        )
        await _call(self._registry.RecordStep, request, actor)

    async def create_artifact(self, actor: str, new: NewArtifact, request_id: str) -> str:
        """See ``Registry``."""
        request = registry_pb2.CreateArtifactRequest(
            parent=new.variant, artifact=to_artifact(new), request_id=request_id
        )
        return str((await _call(self._registry.CreateArtifact, request, actor)).name)

    async def create_measurement(self, actor: str, new: NewMeasurement, request_id: str) -> str:
        """See ``Registry``: a measurement that came from the cache is registered already, by another job."""
        token = ""
        while new.record_digest:
            request = registry_pb2.ListMeasurementsRequest(
                parent=new.artifact, page_size=1000, page_token=token, filter=f'kind = "{new.kind}"'
            )
            page = await _call(self._registry.ListMeasurements, request, actor)
            for known in page.measurements:
                if known.record_digest == new.record_digest and known.threads == new.threads:
                    return str(known.name)
            token = page.next_page_token
            if not token:
                break
        create = registry_pb2.CreateMeasurementRequest(
            parent=new.artifact, measurement=to_measurement(new), request_id=request_id
        )
        return str((await _call(self._registry.CreateMeasurement, create, actor)).name)


def downloader(endpoint: str, token: str) -> Callable[[str, str, Path], None]:
    """Return what downloads a blob of a project to a path, verified; it loads what it needs when called."""

    def download(project: str, digest: str, path: Path) -> None:
        from boardwright.content.transfer import BlobTransfer
        from boardwright.rpc.client import connect_sync

        with connect_sync(endpoint, token=token) as channel:
            transfer = BlobTransfer(blobs_pb2_grpc.BlobsStub(channel))
            try:
                transfer.download(project, Digest.parse(digest), path)
            finally:
                transfer.close()

    return download


async def _call(method: Callable[..., Awaitable[_T]], request: Any, actor: str) -> Any:
    try:
        return await method(request, metadata=(("x-boardwright-principal", actor),))
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
