"""Delivery over gRPC: messages in, service calls, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from boardwright.api.delivery.v1 import delivery_pb2 as pb
from boardwright.api.delivery.v1 import delivery_pb2_grpc as pb_grpc
from boardwright.database.listing import Page
from boardwright.database.requests import fingerprint
from boardwright.delivery.device_service import POLL_SECONDS, DeviceService, SignedRequest
from boardwright.delivery.domain.resources import DeviceKey, FleetKey
from boardwright.delivery.fleets_service import FleetsService
from boardwright.delivery.ports import Intent
from boardwright.delivery.publishing import now_us
from boardwright.delivery.rollouts_service import RolloutsService
from boardwright.delivery.rpc import convert
from boardwright.rpc.names import NameTemplate

PROJECT = NameTemplate("projects/{project}")
FLEET = NameTemplate("projects/{project}/fleets/{fleet}")
DEVICE = NameTemplate("projects/{project}/fleets/{fleet}/devices/{device}")
ROLLOUT = NameTemplate("projects/{project}/rollouts/{rollout}")
MODEL = NameTemplate("projects/{project}/models/{model}")
RELEASE = NameTemplate("projects/{project}/models/{model}/releases/{release#}")


class DeliveryServicer(pb_grpc.DeliveryServicer):
    """See `delivery.proto` for what each method returns and which errors it gives.

    Args:
        fleets, rollouts: what operators ask.
        devices: what devices ask.
        gateway_url: where devices reach the gateway.
    """

    def __init__(
        self, fleets: FleetsService, rollouts: RolloutsService, devices: DeviceService, gateway_url: str
    ) -> None:
        self._fleets = fleets
        self._rollouts = rollouts
        self._devices = devices
        self._gateway_url = gateway_url

    # Fleets

    async def CreateFleet(self, request: pb.CreateFleetRequest, context: Any) -> pb.Fleet:
        (project,) = PROJECT.parse(request.parent, "parent")
        if request.fleet.model:
            MODEL.parse(request.fleet.model, "fleet.model")
        fleet = await self._fleets.create_fleet(
            FleetKey(project, request.fleet_id),
            request.fleet.model,
            request.fleet.stage,
            request.fleet.description,
            _intent("CreateFleet", request),
        )
        return convert.to_fleet(fleet)

    async def GetFleet(self, request: pb.GetFleetRequest, context: Any) -> pb.Fleet:
        return convert.to_fleet(await self._fleets.fleet(_fleet(request.name)))

    async def ListFleets(self, request: pb.ListFleetsRequest, context: Any) -> pb.ListFleetsResponse:
        (project,) = PROJECT.parse(request.parent, "parent")
        found, token = await self._fleets.list_fleets(project, _page(request))
        return pb.ListFleetsResponse(fleets=map(convert.to_fleet, found), next_page_token=token)

    async def CreateEnrolmentToken(
        self, request: pb.CreateEnrolmentTokenRequest, context: Any
    ) -> pb.EnrolmentToken:
        fleet = _fleet(request.parent, "parent")
        token, text, root = await self._fleets.create_token(fleet, request.expire_seconds)
        return pb.EnrolmentToken(
            name=f"{fleet.name}/enrolmentTokens/{token.token_id}",
            token=text,
            expire_time=convert.timestamp(token.expire_us),
            url=self._gateway_url,
            tuf_root=root,
        )

    # Devices

    async def EnrolDevice(self, request: pb.EnrolDeviceRequest, context: Any) -> pb.EnrolDeviceResponse:
        enrolled = await self._devices.enrol(
            request.token,
            request.device_id,
            request.public_key,
            convert.pin_facts(request.host),
            request.agent_version,
            request.signature,
        )
        return pb.EnrolDeviceResponse(
            device=enrolled.device.name,
            tuf_root=enrolled.root,
            tuf_path=enrolled.tuf_path,
            server_time=convert.timestamp(now_us()),
        )

    async def ReportDevice(self, request: pb.ReportDeviceRequest, context: Any) -> pb.ReportDeviceResponse:
        await self._devices.report(_signed(request.signature), request.body)
        return pb.ReportDeviceResponse(server_time=convert.timestamp(now_us()), poll_seconds=POLL_SECONDS)

    async def AuthorizeDownload(
        self, request: pb.AuthorizeDownloadRequest, context: Any
    ) -> pb.AuthorizeDownloadResponse:
        url, size = await self._devices.authorize_download(_signed(request.signature), request.digest)
        return pb.AuthorizeDownloadResponse(url=url, size_bytes=size)

    async def GetTufFile(self, request: pb.GetTufFileRequest, context: Any) -> pb.GetTufFileResponse:
        return pb.GetTufFileResponse(
            data=self._devices.tuf_file(_fleet(request.fleet, "fleet"), request.path)
        )

    async def GetDevice(self, request: pb.GetDeviceRequest, context: Any) -> pb.Device:
        return convert.to_device(await self._fleets.device(_device(request.name)))

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Any) -> pb.ListDevicesResponse:
        found, token = await self._fleets.list_devices(_fleet(request.parent, "parent"), _page(request))
        return pb.ListDevicesResponse(devices=map(convert.to_device, found), next_page_token=token)

    async def RevokeDevice(self, request: pb.RevokeDeviceRequest, context: Any) -> pb.Device:
        device = await self._fleets.revoke_device(_device(request.name), request.reason)
        return convert.to_device(device)

    async def ListReports(self, request: pb.ListReportsRequest, context: Any) -> pb.ListReportsResponse:
        found, token = await self._fleets.list_reports(_device(request.parent, "parent"), _page(request))
        return pb.ListReportsResponse(reports=map(convert.to_report, found), next_page_token=token)

    # Bundles

    async def CreateBundles(self, request: pb.CreateBundlesRequest, context: Any) -> pb.CreateBundlesResponse:
        (project,) = PROJECT.parse(request.parent, "parent")
        RELEASE.parse(request.release, "release")
        made = await self._rollouts.create_bundles(project, request.release)
        return pb.CreateBundlesResponse(bundles=map(convert.to_bundle, made))

    async def ListBundles(self, request: pb.ListBundlesRequest, context: Any) -> pb.ListBundlesResponse:
        (project,) = PROJECT.parse(request.parent, "parent")
        found, token = await self._rollouts.list_bundles(project, _page(request))
        return pb.ListBundlesResponse(bundles=map(convert.to_bundle, found), next_page_token=token)

    # Rollouts

    async def CreateRollout(self, request: pb.CreateRolloutRequest, context: Any) -> pb.Rollout:
        (project,) = PROJECT.parse(request.parent, "parent")
        RELEASE.parse(request.release, "release")
        rollout = await self._rollouts.create_rollout(
            project,
            request.rollout_id,
            _fleet(request.fleet, "fleet"),
            request.release,
            request.reason,
            _intent("CreateRollout", request),
            validate_only=request.validate_only,
        )
        return convert.to_rollout(rollout)

    async def GetRollout(self, request: pb.GetRolloutRequest, context: Any) -> pb.Rollout:
        return convert.to_rollout(await self._rollouts.rollout(*_rollout(request.name)))

    async def ListRollouts(self, request: pb.ListRolloutsRequest, context: Any) -> pb.ListRolloutsResponse:
        (project,) = PROJECT.parse(request.parent, "parent")
        found, token = await self._rollouts.list_rollouts(project, _page(request))
        return pb.ListRolloutsResponse(rollouts=map(convert.to_rollout, found), next_page_token=token)

    async def PauseRollout(self, request: pb.ChangeRolloutRequest, context: Any) -> pb.Rollout:
        place = _rollout(request.name)
        return convert.to_rollout(await self._rollouts.pause_rollout(*place, request.reason, request.etag))

    async def ResumeRollout(self, request: pb.ChangeRolloutRequest, context: Any) -> pb.Rollout:
        place = _rollout(request.name)
        return convert.to_rollout(await self._rollouts.resume_rollout(*place, request.reason, request.etag))

    async def CancelRollout(self, request: pb.ChangeRolloutRequest, context: Any) -> pb.Rollout:
        place = _rollout(request.name)
        return convert.to_rollout(await self._rollouts.cancel_rollout(*place, request.reason, request.etag))

    async def WatchRollout(self, request: pb.WatchRolloutRequest, context: Any) -> AsyncIterator[pb.Rollout]:
        async for rollout in self._rollouts.watch_rollout(*_rollout(request.name)):
            yield convert.to_rollout(rollout)

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Any
    ) -> pb.ListAuditEventsResponse:
        (project,) = PROJECT.parse(request.parent, "parent")
        found, token = await self._fleets.list_audit_events(project, _page(request))
        return pb.ListAuditEventsResponse(events=map(convert.to_audit_event, found), next_page_token=token)


def _page(request: Any) -> Page:
    return Page(request.page_size, request.page_token, request.filter)


def _intent(method: str, request: Any) -> Intent:
    return Intent(method, request.request_id, fingerprint(request.SerializeToString(deterministic=True)))


def _fleet(name: str, field: str = "name") -> FleetKey:
    return FleetKey(*FLEET.parse(name, field))


def _device(name: str, field: str = "name") -> DeviceKey:
    project, fleet, device = DEVICE.parse(name, field)
    return DeviceKey(FleetKey(project, fleet), device)


def _rollout(name: str) -> tuple[str, str]:
    project, rollout = ROLLOUT.parse(name)
    return project, rollout


def _signed(signature: pb.DeviceSignature) -> SignedRequest:
    return SignedRequest(
        _device(signature.device, "signature.device"),
        signature.timestamp_seconds,
        signature.nonce,
        signature.signature,
    )
