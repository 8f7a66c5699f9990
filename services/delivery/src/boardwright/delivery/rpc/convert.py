"""Domain values to protobuf messages, and host descriptions back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from boardwright.api.delivery.v1 import delivery_pb2 as pb
from boardwright.api.types.v1 import types_pb2
from boardwright.delivery.domain.fitting import PIN_FIELDS
from boardwright.delivery.domain.resources import (
    AuditEvent,
    BundleRecord,
    Device,
    DeviceState,
    Fleet,
    Report,
    Rollout,
    RolloutState,
)

_DEVICE_STATES = {
    DeviceState.ENROLLED: pb.Device.STATE_ENROLLED,
    DeviceState.HEALTHY: pb.Device.STATE_HEALTHY,
    DeviceState.FAILED: pb.Device.STATE_FAILED,
    DeviceState.REVOKED: pb.Device.STATE_REVOKED,
}
_ROLLOUT_STATES = {
    RolloutState.ACTIVE: pb.Rollout.STATE_ACTIVE,
    RolloutState.PAUSED: pb.Rollout.STATE_PAUSED,
    RolloutState.COMPLETED: pb.Rollout.STATE_COMPLETED,
    RolloutState.CANCELLED: pb.Rollout.STATE_CANCELLED,
}


def timestamp(microseconds: int) -> Timestamp:
    """Microseconds since 1970 as a message."""
    return Timestamp(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)


def pin_facts(pin: types_pb2.HardwarePin) -> dict[str, Any]:
    """A pin message as plain values, empty ones left out."""
    facts: dict[str, Any] = {}
    for name in PIN_FIELDS:
        value = getattr(pin, name)
        if value:
            facts[name] = list(value) if name == "cpu_features" else value
    return facts


def to_pin(facts: Mapping[str, Any]) -> types_pb2.HardwarePin:
    """Plain values as a pin message; members that it has no field for are left out."""
    pin = types_pb2.HardwarePin()
    for name in PIN_FIELDS:
        value = facts.get(name)
        if name == "cpu_features":
            pin.cpu_features.extend(str(feature) for feature in value or ())
        elif isinstance(value, str):
            setattr(pin, name, value)
    return pin


def to_fleet(fleet: Fleet) -> pb.Fleet:
    """A fleet."""
    return pb.Fleet(
        name=fleet.key.name,
        model=fleet.model,
        stage=fleet.stage,
        description=fleet.description,
        device_count=fleet.device_count,
        offered_release=fleet.offered_release,
        create_time=timestamp(fleet.create_us),
    )


def to_device(device: Device) -> pb.Device:
    """A device."""
    installed, refusal = device.installed, device.refusal
    return pb.Device(
        name=device.key.name,
        state=_DEVICE_STATES[device.state],
        host=to_pin(device.host),
        release=installed.release if installed else "",
        bundle_digest=installed.bundle_digest if installed else "",
        slot=installed.slot if installed else "",
        refusal_reason=refusal.reason if refusal else "",
        refusal_message=refusal.message if refusal else "",
        key_id=device.key_id,
        agent_version=device.agent_version,
        enrol_time=timestamp(device.enrol_us),
        last_seen_time=timestamp(device.last_seen_us),
        rollout=installed.rollout if installed else "",
        install_time=timestamp(device.install_us) if device.install_us else None,
    )


def to_report(report: Report) -> pb.Report:
    """A report."""
    return pb.Report(
        name=f"{report.key.name}/reports/{report.number}",
        kind=report.kind,
        release=report.release,
        bundle_digest=report.bundle_digest,
        reason=report.reason,
        message=report.message,
        details_json=report.details,
        create_time=timestamp(report.create_us),
        traceparent=report.traceparent,
    )


def to_bundle(bundle: BundleRecord) -> pb.Bundle:
    """A bundle."""
    return pb.Bundle(
        name=f"projects/{bundle.project}/bundles/{bundle.digest.removeprefix('sha256:')}",
        digest=bundle.digest,
        release=bundle.release,
        artifact=bundle.artifact,
        pin=to_pin(bundle.pin),
        size_bytes=bundle.size_bytes,
        files=[
            types_pb2.File(
                path=file.path, digest=file.digest, size_bytes=file.size_bytes, media_type=file.media_type
            )
            for file in bundle.files
        ],
        create_time=timestamp(bundle.create_us),
    )


def to_rollout(rollout: Rollout) -> pb.Rollout:
    """A rollout."""
    return pb.Rollout(
        name=rollout.name,
        fleet=rollout.fleet.name,
        release=rollout.release,
        state=_ROLLOUT_STATES[rollout.state],
        reason=rollout.reason,
        state_reason=rollout.state_reason,
        pending_count=rollout.counts.pending,
        succeeded_count=rollout.counts.succeeded,
        failed_count=rollout.counts.failed,
        creator=rollout.creator,
        create_time=timestamp(rollout.create_us),
        update_time=timestamp(rollout.update_us),
        etag=rollout.etag,
        traceparent=rollout.traceparent,
        choices=[
            pb.Rollout.Choice(board=choice.board, artifacts=choice.artifacts, because=choice.because)
            for choice in rollout.choices
        ],
    )


def to_audit_event(event: AuditEvent) -> pb.AuditEvent:
    """An audit event."""
    return pb.AuditEvent(
        name=f"projects/{event.project}/auditEvents/{event.number}",
        actor=event.actor,
        service=event.service,
        method=event.method,
        resource=event.resource,
        reason=event.reason,
        create_time=timestamp(event.create_us),
    )
