"""The Calibration API over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from boardwright.api.calibration.v1 import calibration_pb2 as pb
from boardwright.api.calibration.v1 import calibration_pb2_grpc as pb_grpc
from boardwright.calibration import names
from boardwright.calibration.domain.dataset import DatasetKey
from boardwright.calibration.ports import Caller, RequestId
from boardwright.calibration.rpc import convert
from boardwright.calibration.sealing import Sealer
from boardwright.calibration.service import CalibrationService
from boardwright.database import requests
from boardwright.database.listing import Page
from boardwright.rpc.auth import current_principal
from boardwright.rpc.names import check_id


class CalibrationServicer(pb_grpc.CalibrationServicer):
    """Turns messages into calls of `CalibrationService` and `Sealer`, and back."""

    def __init__(self, service: CalibrationService, sealer: Sealer) -> None:
        self._service = service
        self._sealer = sealer

    async def CreateDataset(self, request: pb.CreateDatasetRequest, context: Any) -> pb.Dataset:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        key = DatasetKey(project, check_id(request.dataset_id, "dataset_id"))
        task, description = request.dataset.task, request.dataset.description
        caller = _caller("CreateDataset")
        created = await self._service.create_dataset(key, task, description, caller, _request_id(request))
        return convert.dataset(created)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Any) -> pb.Dataset:
        return convert.dataset(await self._service.dataset(names.dataset_key(request.name)))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Any) -> pb.ListDatasetsResponse:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        found, token = await self._service.datasets(project, _page(request))
        return pb.ListDatasetsResponse(datasets=map(convert.dataset, found), next_page_token=token)

    async def CreateDatasetVersion(
        self, request: pb.CreateDatasetVersionRequest, context: Any
    ) -> pb.DatasetVersion:
        key = names.dataset_key(request.parent, "parent")
        created = await self._service.create_version(
            key, list(request.classes), _caller("CreateDatasetVersion"), _request_id(request)
        )
        return convert.version(created)

    async def GetDatasetVersion(
        self, request: pb.GetDatasetVersionRequest, context: Any
    ) -> pb.DatasetVersion:
        project, dataset, number = names.VERSION_OR_LATEST.parse(request.name)
        return convert.version(await self._service.version(DatasetKey(project, dataset), number))

    async def ListDatasetVersions(
        self, request: pb.ListDatasetVersionsRequest, context: Any
    ) -> pb.ListDatasetVersionsResponse:
        key = names.dataset_key(request.parent, "parent")
        found, token = await self._service.versions(key, _page(request))
        return pb.ListDatasetVersionsResponse(versions=map(convert.version, found), next_page_token=token)

    async def AddSamples(self, request: pb.AddSamplesRequest, context: Any) -> pb.AddSamplesResponse:
        key = names.version_key(request.parent, "parent")
        samples = [convert.to_sample(message) for message in request.samples]
        added, count = await self._service.add_samples(key, samples, _caller("AddSamples"))
        return pb.AddSamplesResponse(added=added, sample_count=count)

    async def ListSamples(self, request: pb.ListSamplesRequest, context: Any) -> pb.ListSamplesResponse:
        key = names.version_key(request.parent, "parent")
        found, token = await self._service.samples(key, _page(request))
        return pb.ListSamplesResponse(samples=map(convert.sample, found), next_page_token=token)

    async def SealDatasetVersion(
        self, request: pb.SealDatasetVersionRequest, context: Any
    ) -> AsyncIterator[pb.SealProgress]:
        key = names.version_key(request.name)
        left_out = convert.to_invalid(request.left_out)
        caller = _caller("SealDatasetVersion")
        async for step in self._sealer.seal(key, request.skip_invalid, caller, left_out):
            sealed = convert.version(step.version) if step.version else None
            yield pb.SealProgress(done=step.done, total=step.total, version=sealed)

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Any
    ) -> pb.ListAuditEventsResponse:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        found, token = await self._service.audit_events(project, _page(request))
        events = [convert.audit_event(project, event) for event in found]
        return pb.ListAuditEventsResponse(events=events, next_page_token=token)


def _caller(method: str) -> Caller:
    principal = current_principal()
    return Caller(principal.actor, principal.service, method)


def _request_id(request: Any) -> RequestId:
    return RequestId(request.request_id, requests.fingerprint(request.SerializeToString(deterministic=True)))


def _page(request: Any) -> Page:
    return Page(request.page_size, request.page_token, request.filter)
