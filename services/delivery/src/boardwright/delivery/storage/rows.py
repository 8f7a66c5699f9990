"""Rows to domain values and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from boardwright.content.canonical import canonical_json
from boardwright.database import Row
from boardwright.delivery.domain.preference import Choice
from boardwright.delivery.domain.resources import (
    AuditEvent,
    BundleFileRecord,
    BundleRecord,
    Device,
    DeviceKey,
    DeviceState,
    Fleet,
    FleetKey,
    Installed,
    Refusal,
    Report,
    Rollout,
    RolloutState,
    StoredToken,
)


def encode(value: Any) -> str:
    """JSON as it is stored."""
    return canonical_json(value).decode()


def fleet_key(row: Row) -> FleetKey:
    """The fleet that a row belongs to."""
    return FleetKey(row["project"], row["fleet"])


def to_fleet(row: Row, device_count: int, offered_release: str) -> Fleet:
    """A row of `fleets`."""
    return Fleet(
        fleet_key(row),
        row["model"],
        row["stage"],
        row["description"],
        row["create_us"],
        device_count,
        offered_release,
    )


def to_token(row: Row) -> StoredToken:
    """A row of `enrolment_tokens`."""
    return StoredToken(
        token_id=row["token"],
        fleet=fleet_key(row),
        secret_hash=row["secret_hash"],
        root_version=row["root_version"],
        expire_us=row["expire_us"],
        public_key=row["public_key"],
        device=row["device"],
    )


def device_columns(device: Device) -> dict[str, Any]:
    """A device as the columns of `devices`."""
    installed = device.installed or Installed("", "", "", "")
    refusal = device.refusal or Refusal("", "")
    return {
        "project": device.key.fleet.project,
        "fleet": device.key.fleet.fleet,
        "device": device.key.device,
        "state": device.state.value,
        "public_key": device.public_key,
        "key_id": device.key_id,
        "host": encode(dict(device.host)),
        "board": str(device.host.get("board", "")),
        "agent_version": device.agent_version,
        "release": installed.release,
        "bundle_digest": installed.bundle_digest,
        "rollout": installed.rollout,
        "slot": installed.slot,
        "refusal_reason": refusal.reason,
        "refusal_message": refusal.message,
        "refusal_release": refusal.release,
        "refusal_rollout": refusal.rollout,
        "enrol_us": device.enrol_us,
        "last_seen_us": device.last_seen_us,
        "install_us": device.install_us,
    }


def to_device(row: Row) -> Device:
    """A row of `devices`."""
    installed = Installed(row["release"], row["bundle_digest"], row["rollout"], row["slot"])
    refusal = Refusal(
        row["refusal_reason"], row["refusal_message"], row["refusal_release"], row["refusal_rollout"]
    )
    return Device(
        key=DeviceKey(fleet_key(row), row["device"]),
        state=DeviceState(row["state"]),
        public_key=row["public_key"],
        key_id=row["key_id"],
        host=json.loads(row["host"]),
        agent_version=row["agent_version"],
        enrol_us=row["enrol_us"],
        last_seen_us=row["last_seen_us"],
        install_us=row["install_us"],
        installed=installed if installed.slot else None,
        refusal=refusal if refusal.reason else None,
    )


def to_report(row: Row) -> Report:
    """A row of `reports`."""
    return Report(
        key=DeviceKey(fleet_key(row), row["device"]),
        number=row["number"],
        kind=row["kind"],
        release=row["release"],
        bundle_digest=row["bundle_digest"],
        reason=row["reason"],
        message=row["message"],
        details=row["details"],
        create_us=row["create_us"],
        traceparent=row["traceparent"],
    )


def bundle_columns(bundle: BundleRecord) -> dict[str, Any]:
    """A bundle as the columns of `bundles`."""
    return {
        "project": bundle.project,
        "digest": bundle.digest,
        "release": bundle.release,
        "artifact": bundle.artifact,
        "board": str(bundle.pin.get("board", "")),
        "pin": encode(dict(bundle.pin)),
        "size_bytes": bundle.size_bytes,
        "files": encode([asdict(file) for file in bundle.files]),
        "manifest": bundle.manifest,
        "create_us": bundle.create_us,
    }


def to_bundle(row: Row) -> BundleRecord:
    """A row of `bundles`."""
    return BundleRecord(
        project=row["project"],
        digest=row["digest"],
        release=row["release"],
        artifact=row["artifact"],
        pin=json.loads(row["pin"]),
        size_bytes=row["size_bytes"],
        files=tuple(BundleFileRecord(**file) for file in json.loads(row["files"])),
        manifest=row["manifest"],
        create_us=row["create_us"],
    )


def rollout_columns(rollout: Rollout) -> dict[str, Any]:
    """A rollout as the columns of `rollouts`."""
    return {
        "project": rollout.project,
        "rollout": rollout.rollout,
        "sequence": rollout.sequence,
        "fleet": rollout.fleet.fleet,
        "fleet_name": rollout.fleet.name,
        "release": rollout.release,
        "state": rollout.state.value,
        "reason": rollout.reason,
        "state_reason": rollout.state_reason,
        "creator": rollout.creator,
        "create_us": rollout.create_us,
        "update_us": rollout.update_us,
        "revision": rollout.revision,
        "traceparent": rollout.traceparent,
        "choices": encode([asdict(choice) for choice in rollout.choices]),
    }


def to_rollout(row: Row) -> Rollout:
    """A row of `rollouts`."""
    return Rollout(
        project=row["project"],
        rollout=row["rollout"],
        sequence=row["sequence"],
        fleet=fleet_key(row),
        release=row["release"],
        state=RolloutState(row["state"]),
        reason=row["reason"],
        state_reason=row["state_reason"],
        creator=row["creator"],
        create_us=row["create_us"],
        update_us=row["update_us"],
        revision=row["revision"],
        traceparent=row["traceparent"],
        choices=tuple(
            Choice(entry["board"], tuple(entry["artifacts"]), entry["because"])
            for entry in json.loads(row["choices"])
        ),
    )


def to_audit_event(row: Row) -> AuditEvent:
    """A row of `audit_events`."""
    return AuditEvent(
        row["id"],
        row["project"],
        row["actor"],
        row["service"],
        row["method"],
        row["resource"],
        row["reason"],
        row["create_us"],
    )
