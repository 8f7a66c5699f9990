"""What operators ask about fleets: tokens, devices, reports, and who did what."""

from __future__ import annotations

import secrets
from dataclasses import replace

from boardwright.content.digest import Digest
from boardwright.database.listing import Page
from boardwright.delivery import errors
from boardwright.delivery.auditing import Caller
from boardwright.delivery.device_service import advance_rollout, hash_secret
from boardwright.delivery.domain.resources import (
    AuditEvent,
    Device,
    DeviceKey,
    DeviceState,
    Fleet,
    FleetKey,
    Report,
    StoredToken,
)
from boardwright.delivery.ports import (
    FleetRepositories,
    Intent,
    Records,
    Store,
)
from boardwright.delivery.publishing import Publisher, now_us
from boardwright.device.tokens import EnrolmentToken
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.names import check_id

_TOKEN_SECONDS = 3600
_LONGEST_TOKEN_SECONDS = 7 * 24 * 3600


class FleetsService:
    """The use cases around fleets; who calls is `boardwright.rpc.auth.current_principal()`."""

    def __init__(self, store: Store, repositories: FleetRepositories, publisher: Publisher) -> None:
        self._store = store
        self._repositories = repositories
        self._publisher = publisher

    # Fleets and tokens

    async def create_fleet(
        self, key: FleetKey, model: str, stage: str, description: str, intent: Intent
    ) -> Fleet:
        """Make a fleet, its keys and its repository. Raises: AlreadyExists FLEET_EXISTS."""
        check_id(key.fleet, "fleet_id")
        fleet = Fleet(key, model, stage, description, now_us())
        caller = Caller.current()

        def create(records: Records) -> None:
            if records.recall(caller.actor, intent) is not None:
                return
            if not records.add_fleet(fleet):
                raise errors.fleet_exists(key.name)
            records.remember(caller.actor, intent, key.name)
            records.add_audit_event(caller.deed(key.project, "CreateFleet", key.name, description))
            records.announce(key.name, "fleet.created")

        await self._store.write(create)
        await self._publisher.publish(key)
        return await self.fleet(key)

    async def fleet(self, key: FleetKey) -> Fleet:
        """A fleet. Raises: NotFound FLEET_NOT_FOUND."""
        return await self._store.read(lambda records: _fleet(records, key))

    async def list_fleets(self, project: str, page: Page) -> tuple[list[Fleet], str]:
        """By id."""
        return await self._store.read(lambda records: records.list_fleets(project, page))

    async def create_token(self, key: FleetKey, expire_seconds: int) -> tuple[StoredToken, str, bytes]:
        """A one-time token, its text (shown once) and the root metadata that it names.

        Raises:
            NotFound: FLEET_NOT_FOUND.
            InvalidArgument: FIELD_INVALID.
            Unavailable: SIGNING_UNAVAILABLE.
        """
        if not 0 <= expire_seconds <= _LONGEST_TOKEN_SECONDS:
            raise InvalidArgument(
                "FIELD_INVALID",
                "expire_seconds must be 0 (one hour) to 604800 (7 days)",
                field="expire_seconds",
            )
        await self.fleet(key)
        await self._publisher.publish(key)
        version, root = await self._repositories.root(key)
        text = EnrolmentToken(f"t{secrets.token_hex(6)}", secrets.token_urlsafe(24), Digest.of(root))
        now = now_us()
        token = StoredToken(
            token_id=text.token_id,
            fleet=key,
            secret_hash=hash_secret(text.secret),
            root_version=version,
            expire_us=now + (expire_seconds or _TOKEN_SECONDS) * 1_000_000,
        )
        caller = Caller.current()

        def create(records: Records) -> None:
            records.add_token(token, caller.actor, now)
            name = f"{key.name}/enrolmentTokens/{token.token_id}"
            records.add_audit_event(caller.deed(key.project, "CreateEnrolmentToken", name, ""))

        await self._store.write(create)
        return token, str(text), root

    # Devices

    async def device(self, key: DeviceKey) -> Device:
        """A device. Raises: NotFound DEVICE_NOT_FOUND."""
        return await self._store.read(lambda records: _device(records, key))

    async def list_devices(self, fleet: FleetKey, page: Page) -> tuple[list[Device], str]:
        """By id. Raises: NotFound FLEET_NOT_FOUND."""

        def look(records: Records) -> tuple[list[Device], str]:
            _fleet(records, fleet)
            return records.list_devices(fleet, page)

        return await self._store.read(look)

    async def list_reports(self, device: DeviceKey, page: Page) -> tuple[list[Report], str]:
        """Newest first. Raises: NotFound DEVICE_NOT_FOUND."""

        def look(records: Records) -> tuple[list[Report], str]:
            _device(records, device)
            return records.list_reports(device, page)

        return await self._store.read(look)

    async def revoke_device(self, key: DeviceKey, reason: str) -> Device:
        """Refuse a device from now on; again changes nothing. Raises: NotFound DEVICE_NOT_FOUND.

        A rollout that waited for this device alone is complete then.
        """
        caller = Caller.current()

        def revoke(records: Records) -> Device:
            device = _device(records, key)
            if device.state is DeviceState.REVOKED:
                return device
            revoked = replace(device, state=DeviceState.REVOKED)
            records.put_device(revoked)
            records.add_audit_event(caller.deed(key.fleet.project, "RevokeDevice", key.name, reason))
            advance_rollout(records, key.fleet, now_us())
            return revoked

        return await self._store.write(revoke, key=key.fleet.name)

    async def list_audit_events(self, project: str, page: Page) -> tuple[list[AuditEvent], str]:
        """Newest first."""
        return await self._store.read(lambda records: records.list_audit_events(project, page))


def _fleet(records: Records, key: FleetKey) -> Fleet:
    fleet = records.fleet(key)
    if fleet is None:
        raise errors.fleet_not_found(key.name)
    return fleet


def _device(records: Records, key: DeviceKey) -> Device:
    device = records.device(key)
    if device is None:
        raise errors.device_not_found(key.name)
    return device
