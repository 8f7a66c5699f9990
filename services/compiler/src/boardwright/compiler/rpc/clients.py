"""The registry, calibration and builder services, as the compiler's ports want them."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc

from boardwright.api.builder.v1 import builder_pb2, builder_pb2_grpc
from boardwright.api.calibration.v1 import calibration_pb2, calibration_pb2_grpc
from boardwright.api.registry.v1 import blobs_pb2, blobs_pb2_grpc, registry_pb2, registry_pb2_grpc
from boardwright.api.types.v1 import types_pb2
from boardwright.compiler.domain.plan import Given
from boardwright.compiler.domain.profiles import BoardProfile
from boardwright.compiler.errors import dataset_not_sealed
from boardwright.compiler.ports import (
    FileOfVersion,
    KnownVariant,
    NewMeasurement,
    NewVariant,
    SealedDataset,
    StepRecord,
    Version,
)
from boardwright.content import Digest
from boardwright.rpc.client import connect_sync
from boardwright.rpc.errors import NotFound, ResourceExhausted, Unavailable, from_rpc_error

_T = TypeVar("_T")
_MAX_MANIFEST_BYTES = 256 << 20


def on_behalf_of(principal: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata with which a service forwards whom it acts for."""
    return (("x-boardwright-principal", principal),) if principal else ()


async def _ask(answer: Awaitable[_T], service: str) -> _T:
    """Wait for an answer; gRPC's errors become ours.

    Raises:
        Unavailable: SERVICE_UNAVAILABLE, naming the service that is away.
        BoardwrightError: what the service refused with.
    """
    try:
        return await answer
    except grpc.RpcError as error:
        known = from_rpc_error(error)
        if isinstance(known, Unavailable) and known.reason not in (
            "DATABASE_UNAVAILABLE",
            "STORE_UNAVAILABLE",
        ):
            raise Unavailable(
                "SERVICE_UNAVAILABLE", f"the {service} is away; try again.", service=service
            ) from error
        raise known from error


class RegistryClient:
    """See ``boardwright.compiler.ports.Registry``. ``endpoint`` and ``token`` serve downloads in threads."""

    def __init__(self, channel: grpc.aio.Channel, endpoint: str, token: str) -> None:
        self._registry = registry_pb2_grpc.RegistryStub(channel)
        self._blobs = blobs_pb2_grpc.BlobsStub(channel)
        self._endpoint = endpoint
        self._token = token

    async def get_version(self, name: str, principal: str) -> Version:
        """Return a version with its model's task."""
        metadata = on_behalf_of(principal)
        found: registry_pb2.ModelVersion = await _ask(
            self._registry.GetModelVersion(registry_pb2.GetModelVersionRequest(name=name), metadata=metadata),
            "registry",
        )
        model: registry_pb2.Model = await _ask(
            self._registry.GetModel(
                registry_pb2.GetModelRequest(name=found.name.rpartition("/versions/")[0]), metadata=metadata
            ),
            "registry",
        )
        return Version(
            name=found.name,
            number=found.number,
            format=found.format,
            files=tuple(
                FileOfVersion(file.path, Given(file.digest, file.size_bytes, file.media_type))
                for file in found.files
            ),
            task=model.task,
            input_spec_json=found.input_spec_json,
            output_spec_json=found.output_spec_json,
            traceparent=found.traceparent,
            labels=dict(found.labels),
        )

    async def read(self, project: str, digest: str, principal: str) -> bytes:
        """Return a blob's content; what does not fit into one call is downloaded."""
        name = f"projects/{project}/blobs/{digest}"
        try:
            answer: blobs_pb2.ReadBlobResponse = await _ask(
                self._blobs.ReadBlob(blobs_pb2.ReadBlobRequest(name=name), metadata=on_behalf_of(principal)),
                "registry",
            )
            return answer.data
        except ResourceExhausted:
            return await asyncio.to_thread(self._download, project, digest, principal)

    def _download(self, project: str, digest: str, principal: str) -> bytes:
        from boardwright.content.transfer import BlobTransfer

        with (
            tempfile.TemporaryDirectory() as folder,
            connect_sync(self._endpoint, token=self._token, principal=principal) as channel,
        ):
            path = Path(folder) / "blob"
            transfer = BlobTransfer(blobs_pb2_grpc.BlobsStub(channel))
            try:
                transfer.download(project, Digest.parse(digest), path, max_bytes=_MAX_MANIFEST_BYTES)
            finally:
                transfer.close()
            return path.read_bytes()

    async def fix_specs(self, version: str, input_json: str, output_json: str, principal: str) -> None:
        """Fix the specs of a version."""
        request = registry_pb2.FixSpecsRequest(
            name=version, input_spec_json=input_json, output_spec_json=output_json
        )
        await _ask(self._registry.FixSpecs(request, metadata=on_behalf_of(principal)), "registry")

    async def find_variant(self, name: str, principal: str) -> KnownVariant | None:
        """Return a Variant; None where there is none of this name."""
        request = registry_pb2.GetVariantRequest(name=name)
        try:
            found: registry_pb2.Variant = await _ask(
                self._registry.GetVariant(request, metadata=on_behalf_of(principal)), "registry"
            )
        except NotFound:
            return None
        return KnownVariant(found.graph.digest, found.quantization_profile)

    async def create_variant(self, version: str, new: NewVariant, request_id: str, principal: str) -> str:
        """Register a Variant."""
        graph = new.graph.content
        request = registry_pb2.CreateVariantRequest(
            parent=version,
            variant_id=new.variant,
            variant=registry_pb2.Variant(
                recipe=new.recipe,
                recipe_digest=new.recipe_digest,
                graph=types_pb2.File(
                    path=new.graph.path,
                    digest=graph.digest,
                    size_bytes=graph.size_bytes,
                    media_type=graph.media_type,
                ),
                quantization_profile=new.quantization_profile,
                record_digest=new.record_digest,
                details_json=_json_text(new.details),
            ),
            request_id=request_id,
        )
        made: registry_pb2.Variant = await _ask(
            self._registry.CreateVariant(request, metadata=on_behalf_of(principal)), "registry"
        )
        return made.name

    async def create_measurement(
        self, parent: str, new: NewMeasurement, request_id: str, principal: str
    ) -> str:
        """Register figures of a Variant. They do not depend on a board; ``host`` says who ran them."""
        request = registry_pb2.CreateMeasurementRequest(
            parent=parent,
            measurement=registry_pb2.Measurement(
                kind=new.kind,
                values=dict(new.values),
                origin=types_pb2.ORIGIN_MEASURED,
                host=types_pb2.HardwarePin(**dict(new.host)),
                dataset=new.dataset,
                record_digest=new.record_digest,
                details_json=_json_text(new.details),
            ),
            request_id=request_id,
        )
        made: registry_pb2.Measurement = await _ask(
            self._registry.CreateMeasurement(request, metadata=on_behalf_of(principal)), "registry"
        )
        return made.name

    async def record_step(self, project: str, record: StepRecord, principal: str) -> None:
        """Add a step to the lineage graph."""
        request = registry_pb2.RecordStepRequest(
            parent=f"projects/{project}",
            record_digest=record.record_digest,
            kind=record.kind,
            inputs=dict(record.inputs),
            outputs=dict(record.outputs),
        )
        await _ask(self._registry.RecordStep(request, metadata=on_behalf_of(principal)), "registry")


class CalibrationClient:
    """See ``boardwright.compiler.ports.Datasets``."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._calibration = calibration_pb2_grpc.CalibrationStub(channel)

    async def get_sealed(self, name: str, principal: str) -> SealedDataset:
        """Return a sealed dataset version."""
        request = calibration_pb2.GetDatasetVersionRequest(name=name)
        try:
            found: calibration_pb2.DatasetVersion = await _ask(
                self._calibration.GetDatasetVersion(request, metadata=on_behalf_of(principal)),
                "calibration service",
            )
        except NotFound as error:
            raise NotFound("DATASET_NOT_FOUND", error.message, dataset=name) from error
        if found.state != calibration_pb2.DatasetVersion.STATE_SEALED:
            raise dataset_not_sealed(found.name)
        return SealedDataset(found.name, found.manifest_digest)


class BuilderClient:
    """See ``boardwright.compiler.ports.Boards``."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._builder = builder_pb2_grpc.BuilderStub(channel)

    async def get_profile(self, board: str, principal: str) -> BoardProfile:
        """Return a board's quantization profile."""
        request = builder_pb2.GetBoardRequest(name=f"boards/{board.removeprefix('boards/')}")
        found: builder_pb2.Board = await _ask(
            self._builder.GetBoard(request, metadata=on_behalf_of(principal)), "builder"
        )
        profile = found.quantization_profile
        scheme = {
            "activation_type": profile.activation_type,
            "weight_type": profile.weight_type,
            "activation_symmetric": profile.symmetric_activations,
            "per_channel": profile.per_channel_weights,
        }
        # The entry holds all that a scheme has, such as scales that must be powers of two.
        entry = json.loads(found.entry_json) if found.entry_json else {}
        return BoardProfile(profile.name, {**scheme, **entry.get("quantization_scheme", {})})


def _json_text(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True, separators=(",", ":"), allow_nan=False)
