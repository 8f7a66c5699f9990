"""The Blobs API over gRPC. `PERMISSIONS` says what each method needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from google.protobuf import empty_pb2, timestamp_pb2

from boardwright.api.registry.v1 import blobs_pb2 as pb
from boardwright.api.registry.v1 import blobs_pb2_grpc as pb_grpc
from boardwright.content import Digest, SignedRequest
from boardwright.registry.blobs_collector import BlobCollector
from boardwright.registry.blobs_errors import parse_digest
from boardwright.registry.blobs_service import BlobsService, UploadView
from boardwright.registry.domain.blobs import BlobRecord
from boardwright.rpc.auth import Permission, permits
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.names import NameTemplate

PROJECT = NameTemplate("projects/{project}")
BLOB = NameTemplate("projects/{project}/blobs/{blob*}")
UPLOAD = NameTemplate("projects/{project}/uploads/{upload*}")
REFERENCE = NameTemplate("projects/{project}/references/{reference*}")

PERMISSIONS: Mapping[str, Permission] = {
    "CreateBlob": permits("developer", "parent", worker=True),
    "GetBlob": permits("viewer", "name", worker=True),
    "ReadBlob": permits("viewer", "name", worker=True),
    "CreateDownload": permits("viewer", "name", worker=True),
    "StartUpload": permits("developer", "parent", worker=True),
    "GetUpload": permits("developer", "name", worker=True),
    "CompleteUpload": permits("developer", "name", worker=True),
    "CancelUpload": permits("developer", "name", worker=True),
    # What a reference holds outlives collections: only the services that set them, and admins, let go of it.
    "SetReference": permits("admin", "reference.name"),
    "DeleteReference": permits("admin", "name"),
    "CollectBlobs": permits("admin"),
}

_MOST_DIGESTS = 10_000


class BlobsServicer(pb_grpc.BlobsServicer):
    """Turns messages into calls of `BlobsService` and `BlobCollector`, and back."""

    def __init__(self, service: BlobsService, collector: BlobCollector) -> None:
        self._service = service
        self._collector = collector

    async def CreateBlob(self, request: pb.CreateBlobRequest, context: Any) -> pb.Blob:
        (project,) = PROJECT.parse(request.parent, "parent")
        return _blob(await self._service.create(project, request.data, request.digest))

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> pb.Blob:
        return _blob(await self._service.get(*_blob_name(request.name)))

    async def ReadBlob(self, request: pb.ReadBlobRequest, context: Any) -> pb.ReadBlobResponse:
        return pb.ReadBlobResponse(data=await self._service.read(*_blob_name(request.name)))

    async def CreateDownload(self, request: pb.CreateDownloadRequest, context: Any) -> pb.Download:
        project, digest = _blob_name(request.name)
        blob, signed, seconds = await self._service.download(project, digest, request.expire_seconds)
        return pb.Download(blob=_blob(blob), request=_signed(signed, seconds))

    async def StartUpload(self, request: pb.StartUploadRequest, context: Any) -> pb.Upload:
        (project,) = PROJECT.parse(request.parent, "parent")
        return _upload(await self._service.start_upload(project, request.digest, request.size_bytes))

    async def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.Upload:
        return _upload(await self._service.get_upload(*UPLOAD.parse(request.name)))

    async def CompleteUpload(self, request: pb.CompleteUploadRequest, context: Any) -> pb.Blob:
        return _blob(await self._service.complete_upload(*UPLOAD.parse(request.name)))

    async def CancelUpload(self, request: pb.CancelUploadRequest, context: Any) -> empty_pb2.Empty:
        await self._service.cancel_upload(*UPLOAD.parse(request.name))
        return empty_pb2.Empty()

    async def SetReference(self, request: pb.SetReferenceRequest, context: Any) -> pb.Reference:
        name = request.reference.name
        project, reference = REFERENCE.parse(name, "reference.name")
        if len(request.reference.digests) > _MOST_DIGESTS:
            raise InvalidArgument(
                "FIELD_INVALID",
                f"a reference holds at most {_MOST_DIGESTS} blobs; use several references",
                field="reference.digests",
            )
        held = await self._service.set_reference(project, reference, request.reference.digests)
        return pb.Reference(name=name, digests=[str(digest) for digest in held])

    async def DeleteReference(self, request: pb.DeleteReferenceRequest, context: Any) -> empty_pb2.Empty:
        await self._service.delete_reference(*REFERENCE.parse(request.name))
        return empty_pb2.Empty()

    async def CollectBlobs(self, request: pb.CollectBlobsRequest, context: Any) -> pb.CollectBlobsResponse:
        found = await self._collector.collect(validate_only=request.validate_only)
        return pb.CollectBlobsResponse(
            blobs_deleted=found.blobs, bytes_deleted=found.bytes, uploads_deleted=found.uploads
        )


def _blob_name(name: str) -> tuple[str, Digest]:
    project, digest = BLOB.parse(name)
    return project, parse_digest(digest)


def _blob(record: BlobRecord) -> pb.Blob:
    return pb.Blob(
        name=BLOB.format(record.project, str(record.digest)),
        digest=str(record.digest),
        size_bytes=record.size_bytes,
        create_time=_timestamp(record.created_us),
    )


def _upload(view: UploadView) -> pb.Upload:
    record, plan = view.record, view.plan
    parts = [
        pb.Upload.Part(
            number=number,
            offset=plan.offset(number),
            size_bytes=plan.length(number),
            received=number in view.received,
            request=(
                _signed(view.requests[number], view.request_seconds) if number in view.requests else None
            ),
        )
        for number in ([] if record.completed else range(1, plan.count + 1))
    ]
    return pb.Upload(
        name=UPLOAD.format(record.project, record.upload),
        state=pb.Upload.STATE_COMPLETED if record.completed else pb.Upload.STATE_ACTIVE,
        digest=str(record.digest),
        size_bytes=record.size_bytes,
        part_size_bytes=plan.part_bytes,
        parts=parts,
        expire_time=_timestamp(record.expires_us),
    )


def _signed(request: SignedRequest, seconds: int) -> pb.SignedRequest:
    return pb.SignedRequest(
        method=request.method,
        url=request.url,
        headers=dict(request.headers),
        expire_time=_timestamp(int((time.time() + seconds) * 1_000_000)),
    )


def _timestamp(microseconds: int) -> timestamp_pb2.Timestamp:
    seconds, rest = divmod(microseconds, 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest * 1000)
