"""What devices ask: enrol, report, download. Every rule about tokens, keys and signatures."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from boardwright.content import Digest, InvalidContent, read_json
from boardwright.delivery import errors
from boardwright.delivery.domain.fitting import host_facts
from boardwright.delivery.domain.resources import (
    AuditEvent,
    Device,
    DeviceKey,
    DeviceState,
    FleetKey,
    Installed,
    Refusal,
    Report,
    StoredToken,
)
from boardwright.delivery.domain.rollouts import settle
from boardwright.delivery.ports import Blobs, FleetRepositories, Records, Store
from boardwright.delivery.publishing import now_us
from boardwright.device import signing
from boardwright.device.errors import InvalidDocument
from boardwright.device.tokens import EnrolmentToken
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.names import check_id
from boardwright.telemetry import current_traceparent

POLL_SECONDS = 30
_DOWNLOAD_SECONDS = 3600
_KINDS = frozenset({"installed", "refused", "failed", "rolled-back", "seen"})
_LONGEST_TEXT = 2000
_LONGEST_DETAILS = 16_000
_NONCE_US = 2 * signing.ALLOWED_SKEW_SECONDS * 1_000_000


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The answer to an enrolment."""

    device: DeviceKey
    root: bytes
    tuf_path: str


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The signature that came with a device's request."""

    device: DeviceKey
    timestamp_seconds: int
    nonce: str
    signature: bytes


class DeviceService:
    """The use cases of devices."""

    def __init__(self, store: Store, repositories: FleetRepositories, blobs: Blobs) -> None:
        self._store = store
        self._repositories = repositories
        self._blobs = blobs

    async def enrol(
        self,
        token_text: str,
        device_id: str,
        public_key: bytes,
        host: Mapping[str, Any],
        agent_version: str,
        signature: bytes,
    ) -> Enrolled:
        """Make the owner of a key a device of the token's fleet. The same key may repeat it.

        Raises:
            PermissionDenied: TOKEN_INVALID, TOKEN_USED, TOKEN_EXPIRED.
            Unauthenticated: SIGNATURE_INVALID.
            AlreadyExists: DEVICE_EXISTS.
            InvalidArgument: FIELD_INVALID.
        """
        try:
            token = EnrolmentToken.parse(token_text)
        except InvalidDocument as error:
            raise errors.token_invalid() from error
        text = signing.enrolment_message(token_text, device_id, public_key, host, agent_version)
        if len(public_key) != 32 or not signing.verify(public_key, text, signature):
            raise errors.signature_invalid("the enrolment is not signed by the key that it brings")
        try:
            host = host_facts(host)
        except (TypeError, ValueError) as error:
            raise InvalidArgument("FIELD_INVALID", f"host: {error}", field="host") from error
        chosen = check_id(device_id or f"device-{hashlib.sha256(public_key).hexdigest()[:8]}", "device_id")
        now = now_us()

        def enrol(records: Records) -> tuple[StoredToken, DeviceKey]:
            stored = _usable(records.token(token.token_id), token, public_key, now)
            if stored.device:
                return stored, DeviceKey(stored.fleet, stored.device)
            key = DeviceKey(stored.fleet, chosen)
            old = records.device(key)
            if (
                old is not None
                and old.state is not DeviceState.REVOKED
                and old.public_key != public_key.hex()
            ):
                raise errors.device_exists(key.name)
            records.put_device(_new_device(key, public_key, host, agent_version, now))
            records.use_token(replace(stored, public_key=public_key.hex(), device=chosen))
            records.add_audit_event(_deed(key, "EnrolDevice", f"token {token.token_id}", now))
            if (rollout := records.offered(key.fleet)) is not None:
                records.announce(rollout.name, "rollout.changed")
            return stored, key

        stored, key = await self._store.write(enrol)
        _, root = await self._repositories.root(key.fleet, stored.root_version)
        return Enrolled(key, root, f"tuf/{key.fleet.name}")

    async def report(self, request: SignedRequest, body: bytes) -> None:
        """Take what a device says about itself.

        Raises:
            NotFound: DEVICE_NOT_FOUND.
            PermissionDenied: DEVICE_REVOKED.
            Unauthenticated: SIGNATURE_INVALID, TIMESTAMP_SKEWED.
            InvalidArgument: REPORT_INVALID.
        """
        text = signing.report_message(request.device.name, request.timestamp_seconds, request.nonce, body)
        await self._check(request, text)
        said = _read_report(body)
        now = now_us()
        keep_until = now + _NONCE_US
        traceparent = current_traceparent()

        def take(records: Records) -> None:
            if not records.take_nonce(request.device, request.nonce, now, keep_until):
                raise errors.signature_invalid("this request was made before")
            device = _admitted(records, request.device)  # it may have been revoked since
            after = _after(device, said, now)
            records.put_device(after)
            if said["kind"] != "seen" or after.installed != device.installed:
                records.add_report(_report_of(request.device, said, now, traceparent))
            if (device.installed, device.refusal) != (after.installed, after.refusal):
                advance_rollout(records, request.device.fleet, now)

        await self._store.write(take, key=request.device.fleet.name)

    async def authorize_download(self, request: SignedRequest, digest: str) -> tuple[str, int]:
        """Where a device may fetch a blob of a bundle that was rolled out to its fleet, and its size.

        Raises:
            NotFound: DEVICE_NOT_FOUND, BLOB_NOT_FOUND.
            PermissionDenied: DEVICE_REVOKED.
            Unauthenticated: SIGNATURE_INVALID, TIMESTAMP_SKEWED.
        """
        try:
            Digest.parse(digest)
        except InvalidContent as error:
            raise errors.blob_not_found(digest) from error
        text = signing.download_message(request.device.name, request.timestamp_seconds, request.nonce, digest)
        await self._check(request, text)
        fleet, now = request.device.fleet, now_us()
        keep_until = now + _NONCE_US

        def find(records: Records) -> int | None:
            if not records.take_nonce(request.device, request.nonce, now, keep_until):
                raise errors.signature_invalid("this request was made before")
            _admitted(records, request.device)
            return records.blob_size(fleet, digest)

        size = await self._store.write(find, key=fleet.name)
        if size is None:
            raise errors.blob_not_found(digest)
        return await self._blobs.download_url(fleet.project, digest, _DOWNLOAD_SECONDS), size

    def tuf_file(self, fleet: FleetKey, path: str) -> bytes:
        """A file of a fleet's repository. Raises: NotFound TUF_FILE_NOT_FOUND."""
        data = self._repositories.read(fleet, path)
        if data is None:
            raise errors.tuf_file_not_found(path)
        return data

    async def _check(self, request: SignedRequest, text: bytes) -> None:
        device = await self._store.read(lambda records: _admitted(records, request.device))
        if not request.nonce or len(request.nonce) > 100:
            raise InvalidArgument("FIELD_INVALID", "the nonce must have 1 to 100 characters", field="nonce")
        if not signing.verify(bytes.fromhex(device.public_key), text, request.signature):
            raise errors.signature_invalid(
                "the signature is not the device's (was another machine enrolled in its place?)"
            )
        now = datetime.now(UTC)
        if abs(now.timestamp() - request.timestamp_seconds) > signing.ALLOWED_SKEW_SECONDS:
            raise errors.timestamp_skewed(now.isoformat(timespec="seconds"))


def _admitted(records: Records, key: DeviceKey) -> Device:
    """The device. Raises: NotFound DEVICE_NOT_FOUND, PermissionDenied DEVICE_REVOKED."""
    device = records.device(key)
    if device is None:
        raise errors.device_not_found(key.name)
    if device.state is DeviceState.REVOKED:
        raise errors.device_revoked(key.name)
    return device


def _usable(stored: StoredToken | None, token: EnrolmentToken, public_key: bytes, now: int) -> StoredToken:
    if stored is None or not hmac.compare_digest(stored.secret_hash, hash_secret(token.secret)):
        raise errors.token_invalid()
    if stored.public_key == public_key.hex():
        return stored
    if stored.public_key:
        raise errors.token_used()
    if stored.expire_us <= now:
        raise errors.token_expired()
    return stored


def hash_secret(secret: str) -> str:
    """What is stored of a token's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _new_device(
    key: DeviceKey, public_key: bytes, host: Mapping[str, Any], agent_version: str, now: int
) -> Device:
    return Device(
        key=key,
        state=DeviceState.ENROLLED,
        public_key=public_key.hex(),
        key_id=hashlib.sha256(public_key).hexdigest(),
        host=dict(host),
        agent_version=agent_version[:100],
        enrol_us=now,
        last_seen_us=now,
    )


def _deed(key: DeviceKey, method: str, reason: str, now: int) -> AuditEvent:
    return AuditEvent(0, key.fleet.project, key.name, "gateway", method, key.name, reason, now)


def _read_report(body: bytes) -> dict[str, Any]:
    """The report's members that are used, checked. Raises: InvalidArgument REPORT_INVALID."""
    try:
        said = read_json(body)
        installed, refusal = said.get("installed"), said.get("refusal")
        kind = said["kind"]
        if kind not in _KINDS:
            raise ValueError(f"kind {kind!r} is none of {', '.join(sorted(_KINDS))}")
        return {
            "kind": kind,
            "agent_version": _text(said, "agent_version"),
            "host": host_facts(said.get("host") or {}),
            "details": _details(said.get("details") or {}),
            "installed": installed
            and Installed(
                _text(installed, "release"),
                _text(installed, "bundle_digest"),
                _text(installed, "rollout"),
                _text(installed, "slot"),
            ),
            "refusal": refusal
            and Refusal(
                _text(refusal, "reason"),
                _text(refusal, "message"),
                _text(refusal, "release"),
                _text(refusal, "rollout"),
            ),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            "REPORT_INVALID", f"the report is malformed ({error}): update the agent, or this service"
        ) from error


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text")
    # What no database holds: half of a surrogate pair, and NUL.
    text = value[:_LONGEST_TEXT].encode("utf-8", "replace").decode()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _details(value: Any) -> str:
    if not isinstance(value, dict):
        raise TypeError("details must be an object")
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return text if len(text) <= _LONGEST_DETAILS else json.dumps({"left_out_characters": len(text)})


def _after(device: Device, said: Mapping[str, Any], now: int) -> Device:
    """The device after a report. A failure that may go away by itself leaves the state as it was."""
    state = {
        "refused": DeviceState.FAILED,
        "rolled-back": DeviceState.FAILED,
        "failed": device.state,
        "installed": DeviceState.HEALTHY,
        "seen": DeviceState.HEALTHY if said["installed"] else DeviceState.ENROLLED,
    }[said["kind"]]
    installed = said["installed"] or None
    return replace(
        device,
        state=state,
        installed=installed,
        install_us=(device.install_us if installed == device.installed else now) if installed else 0,
        refusal=said["refusal"] or None,
        host=said["host"] or device.host,
        agent_version=said["agent_version"] or device.agent_version,
        last_seen_us=now,
    )


def _report_of(key: DeviceKey, said: Mapping[str, Any], now: int, traceparent: str) -> Report:
    installed, refusal = said["installed"], said["refusal"]
    return Report(
        key=key,
        number=0,
        kind=said["kind"],
        release=refusal.release if refusal else installed.release if installed else "",
        bundle_digest=installed.bundle_digest if installed else "",
        reason=refusal.reason if refusal else "",
        message=refusal.message if refusal else "",
        details=said["details"],
        create_us=now,
        traceparent=traceparent,
    )


def advance_rollout(records: Records, fleet: FleetKey, now: int) -> None:
    """Tell the fleet's rollout that a device stands differently, and complete it when all have it."""
    rollout = records.offered(fleet)
    if rollout is None:
        return
    settled = settle(rollout, records.count(rollout), now)
    if settled.state is not rollout.state:
        records.update_rollout(settled)
    records.announce(rollout.name, "rollout.changed")
