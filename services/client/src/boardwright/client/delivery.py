"""Fleets, devices and rollouts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from boardwright.api.delivery.v1 import delivery_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2
from boardwright.client import references
from boardwright.client.connection import Connection, continue_trace, every_page
from boardwright.rpc.errors import Unavailable

ENDED = (pb.Rollout.STATE_COMPLETED, pb.Rollout.STATE_CANCELLED)
_RECONNECT_SECONDS = 30.0


class Fleets:
    """`client.fleets`. A fleet is named by its id or full name, a device as fleet/device."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project

    def create(
        self, fleet: str, model: str, *, stage: str = "", description: str = "", request_id: str = ""
    ) -> pb.Fleet:
        """Create a fleet whose devices run `model`; with a stage, only releases on it may roll out.

        Raises:
            AlreadyExists: FLEET_EXISTS.
        """
        wanted = pb.Fleet(
            model=references.model_name(self._project, model), stage=stage, description=description
        )
        created: pb.Fleet = self._connection.delivery.CreateFleet(
            pb.CreateFleetRequest(
                parent=f"projects/{self._project}", fleet_id=fleet, fleet=wanted, request_id=request_id
            )
        )
        return created

    def get(self, fleet: str) -> pb.Fleet:
        """A fleet. Raises: NotFound FLEET_NOT_FOUND."""
        found: pb.Fleet = self._connection.delivery.GetFleet(pb.GetFleetRequest(name=self.full_name(fleet)))
        return found

    def list(self, *, where: str = "", limit: int = 0) -> Iterator[pb.Fleet]:
        """The project's fleets by id."""
        request = pb.ListFleetsRequest(parent=f"projects/{self._project}", filter=where)
        return every_page(self._connection.delivery.ListFleets, request, "fleets", limit)

    def enrolment_token(self, fleet: str, *, expire_seconds: int = 0) -> pb.EnrolmentToken:
        """A token with which one device can enrol, once; shown nowhere else. Raises: NotFound."""
        token: pb.EnrolmentToken = self._connection.delivery.CreateEnrolmentToken(
            pb.CreateEnrolmentTokenRequest(parent=self.full_name(fleet), expire_seconds=expire_seconds)
        )
        return token

    def devices(self, fleet: str, *, where: str = "", limit: int = 0) -> Iterator[pb.Device]:
        """A fleet's devices by id."""
        request = pb.ListDevicesRequest(parent=self.full_name(fleet), filter=where)
        return every_page(self._connection.delivery.ListDevices, request, "devices", limit)

    def device(self, device: str) -> pb.Device:
        """A device (fleet/device). Raises: NotFound DEVICE_NOT_FOUND."""
        request = pb.GetDeviceRequest(name=self.device_name(device))
        found: pb.Device = self._connection.delivery.GetDevice(request)
        return found

    def revoke(self, device: str, reason: str) -> pb.Device:
        """Refuse a device from now on. Raises: NotFound DEVICE_NOT_FOUND."""
        request = pb.RevokeDeviceRequest(name=self.device_name(device), reason=reason)
        revoked: pb.Device = self._connection.delivery.RevokeDevice(request)
        return revoked

    def reports(self, device: str, *, where: str = "", limit: int = 0) -> Iterator[pb.Report]:
        """What a device reported, newest first."""
        request = pb.ListReportsRequest(parent=self.device_name(device), filter=where)
        return every_page(self._connection.delivery.ListReports, request, "reports", limit)

    def full_name(self, fleet: str) -> str:
        """The fleet's full name."""
        return references.in_project(self._project, "fleets", fleet)

    def device_name(self, device: str) -> str:
        """The device's full name. Raises: InvalidArgument REFERENCE_INVALID."""
        return references.device_name(self._project, device)


class Rollouts:
    """`client.rollouts`."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project

    def create(
        self,
        fleet: str,
        release: str,
        *,
        reason: str = "",
        rollout_id: str = "",
        validate_only: bool = False,
        request_id: str = "",
    ) -> pb.Rollout:
        """Sign a release's bundles for a fleet and offer them to its devices.

        Args:
            release: full name, or shorthand (digits@production, digits@r2).

        Raises:
            NotFound: FLEET_NOT_FOUND, RELEASE_NOT_FOUND.
            FailedPrecondition: ROLLOUT_ACTIVE, RELEASE_NOT_PROMOTED, NO_BUNDLE_FITS.
        """
        found = self._release(release)
        request = pb.CreateRolloutRequest(
            parent=f"projects/{self._project}",
            rollout_id=rollout_id,
            fleet=references.in_project(self._project, "fleets", fleet),
            release=found.name,
            reason=reason,
            request_id=request_id,
            validate_only=validate_only,
        )
        with continue_trace(found.traceparent):
            started: pb.Rollout = self._connection.delivery.CreateRollout(request)
        return started

    def get(self, rollout: str) -> pb.Rollout:
        """A rollout. Raises: NotFound ROLLOUT_NOT_FOUND."""
        name = references.in_project(self._project, "rollouts", rollout)
        found: pb.Rollout = self._connection.delivery.GetRollout(pb.GetRolloutRequest(name=name))
        return found

    def list(self, *, where: str = "", limit: int = 0) -> Iterator[pb.Rollout]:
        """The project's rollouts, newest first."""
        request = pb.ListRolloutsRequest(parent=f"projects/{self._project}", filter=where)
        return every_page(self._connection.delivery.ListRollouts, request, "rollouts", limit)

    def pause(self, rollout: str, reason: str = "") -> pb.Rollout:
        """No further device installs. Raises: FailedPrecondition ROLLOUT_ENDED."""
        return self._change("PauseRollout", rollout, reason)

    def resume(self, rollout: str, reason: str = "") -> pb.Rollout:
        """Go on. Raises: FailedPrecondition ROLLOUT_ENDED."""
        return self._change("ResumeRollout", rollout, reason)

    def cancel(self, rollout: str, reason: str = "") -> pb.Rollout:
        """Withdraw the release from the fleet. Raises: FailedPrecondition ROLLOUT_ENDED."""
        return self._change("CancelRollout", rollout, reason)

    def watch(self, rollout: str) -> Iterator[pb.Rollout]:
        """The rollout as it stands, then after each change until it has ended.

        Raises:
            NotFound: ROLLOUT_NOT_FOUND.
            Unavailable: the service stayed away for 30 s.
        """
        name = references.in_project(self._project, "rollouts", rollout)
        lost_at = 0.0
        while True:
            try:
                request = pb.WatchRolloutRequest(name=name)
                for current in self._connection.delivery.stream("WatchRollout", request):
                    lost_at = 0.0
                    yield current
                    if current.state in ENDED:
                        return
            except Unavailable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _RECONNECT_SECONDS:
                    raise
            time.sleep(0.2)

    def _change(self, rpc: str, rollout: str, reason: str) -> pb.Rollout:
        name = references.in_project(self._project, "rollouts", rollout)
        changed: pb.Rollout = getattr(self._connection.delivery, rpc)(
            pb.ChangeRolloutRequest(name=name, reason=reason)
        )
        return changed

    def _release(self, release: str) -> registry_pb2.Release:
        name = references.release_name(self._project, release)
        found: registry_pb2.Release = self._connection.registry.GetRelease(
            registry_pb2.GetReleaseRequest(name=name)
        )
        return found
