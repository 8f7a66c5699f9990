"""The registry and its Blobs API, as delivery asks them: implements `ports.Releases` and `ports.Blobs`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc

from boardwright.api.registry.v1 import blobs_pb2, blobs_pb2_grpc, registry_pb2, registry_pb2_grpc
from boardwright.api.types.v1 import types_pb2
from boardwright.delivery.domain.bundling import ArtifactFacts, ReleaseFacts
from boardwright.delivery.domain.preference import MeasuredLatency, contested
from boardwright.delivery.domain.resources import BundleFileRecord
from boardwright.delivery.rpc.convert import pin_facts
from boardwright.rpc.auth import current_principal
from boardwright.rpc.client import connect
from boardwright.rpc.errors import NotFound, from_rpc_error

T = TypeVar("T")

_STATEMENT = "application/vnd.in-toto+json"
_PROVENANCE_NAME = "provenance.json"


class RegistryClient:
    """Calls with the service's token, on behalf of the caller. Connects when first used."""

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint = endpoint
        self._token = token
        self._channel: grpc.aio.Channel | None = None

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close(None)

    async def facts(self, release: str) -> ReleaseFacts:
        """See `ports.Releases`."""
        found = await self._registry("GetRelease", registry_pb2.GetReleaseRequest(name=release))
        request = registry_pb2.GetModelVersionRequest(name=found.version)
        version = await self._registry("GetModelVersion", request)
        several = contested([pin_facts(entry.pin) for entry in found.entries])
        artifacts = await asyncio.gather(
            *(
                self._facts_of(found.name, version, entry.artifact, measured=entry.pin.board in several)
                for entry in found.entries
            )
        )
        return ReleaseFacts(artifacts, found.traceparent)

    async def _facts_of(
        self, release: str, version: Any, artifact_name: str, *, measured: bool
    ) -> ArtifactFacts:
        request = registry_pb2.GetArtifactRequest(name=artifact_name)
        artifact = await self._registry("GetArtifact", request)
        return ArtifactFacts(
            release=release,
            model_version=version.name,
            variant=artifact.name.partition("/artifacts/")[0],
            artifact=artifact.name,
            pin=_pin_document(artifact.pin),
            files=tuple(
                BundleFileRecord(file.path, file.digest, file.size_bytes, file.media_type)
                for file in artifact.files
            ),
            details=json.loads(artifact.details_json or "{}"),
            input_spec_json=version.input_spec_json,
            output_spec_json=version.output_spec_json,
            record=await self._record(artifact.name, artifact.record_digest),
            latencies=await self._latencies(artifact.name) if measured else (),
        )

    async def _latencies(self, artifact: str) -> tuple[MeasuredLatency, ...]:
        request = registry_pb2.ListMeasurementsRequest(parent=artifact, filter='kind = "latency"')
        found: list[MeasuredLatency] = []
        while True:
            answer = await self._registry("ListMeasurements", request)
            found.extend(
                _latency(each) for each in answer.measurements if each.origin == types_pb2.ORIGIN_MEASURED
            )
            if not answer.next_page_token:
                return tuple(found)
            request.page_token = answer.next_page_token

    async def _record(self, artifact: str, digest: str) -> BundleFileRecord | None:
        if not digest:
            return None
        project = artifact.split("/")[1]
        try:
            request = blobs_pb2.GetBlobRequest(name=f"projects/{project}/blobs/{digest}")
            blob = await self._blobs("GetBlob", request)
        except NotFound:
            return None
        return BundleFileRecord(_PROVENANCE_NAME, digest, blob.size_bytes, _STATEMENT)

    async def stage_holds(self, model: str, stage: str) -> str:
        """See `ports.Releases`."""
        request = registry_pb2.GetStageRequest(name=f"{model}/stages/{stage}")
        return str((await self._registry("GetStage", request)).release)

    async def store(self, project: str, data: bytes) -> None:
        """See `ports.Blobs`."""
        await self._blobs("CreateBlob", blobs_pb2.CreateBlobRequest(parent=f"projects/{project}", data=data))

    async def hold(self, project: str, reference: str, digests: Sequence[str]) -> None:
        """See `ports.Blobs`."""
        named = blobs_pb2.Reference(name=f"projects/{project}/references/{reference}", digests=digests)
        await self._blobs("SetReference", blobs_pb2.SetReferenceRequest(reference=named))

    async def download_url(self, project: str, digest: str, expire_seconds: int) -> str:
        """See `ports.Blobs`."""
        request = blobs_pb2.CreateDownloadRequest(
            name=f"projects/{project}/blobs/{digest}", expire_seconds=expire_seconds
        )
        return str((await self._blobs("CreateDownload", request)).request.url)

    async def _registry(self, method: str, request: Any) -> Any:
        return await self._call(registry_pb2_grpc.RegistryStub, method, request)

    async def _blobs(self, method: str, request: Any) -> Any:
        return await self._call(blobs_pb2_grpc.BlobsStub, method, request)

    async def _call(self, stub: Callable[[grpc.aio.Channel], Any], method: str, request: Any) -> Any:
        if self._channel is None:
            self._channel = connect(self._endpoint, token=self._token)
        actor = current_principal().actor
        call: Awaitable[Any] = getattr(stub(self._channel), method)(
            request, metadata=(("x-boardwright-principal", actor),)
        )
        try:
            return await call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def _latency(measurement: Any) -> MeasuredLatency:
    facts = pin_facts(measurement.host)
    host = {name: value for name, value in facts.items() if not name.startswith("runtime")}
    return MeasuredLatency(
        board=measurement.board,
        host=json.dumps(host, sort_keys=True),
        threads=measurement.threads,
        p50_ms=measurement.values.get("p50_ms", 0.0),
        create_us=measurement.create_time.ToMicroseconds(),
    )


def _pin_document(pin: Any) -> dict[str, Any]:
    from boardwright.model.pins import HardwarePin  # loads NumPy, which an idle service does without

    facts = pin_facts(pin)
    return HardwarePin(**{**facts, "cpu_features": tuple(facts.get("cpu_features", ()))}).to_json()
