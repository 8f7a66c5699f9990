"""Fleets, tokens, devices, bundles, rollouts and reports, as values. Times are microseconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from boardwright.delivery.domain.preference import Choice


@dataclass(frozen=True, slots=True, order=True)
class FleetKey:
    """A fleet's place."""

    project: str
    fleet: str

    @property
    def name(self) -> str:
        """The resource name."""
        return f"projects/{self.project}/fleets/{self.fleet}"

    @property
    def repository(self) -> str:
        """The name of its TUF repository's folder; ids hold no dots, so two fleets never share one."""
        return f"{self.project}.{self.fleet}"


@dataclass(frozen=True, slots=True, order=True)
class DeviceKey:
    """A device's place."""

    fleet: FleetKey
    device: str

    @property
    def name(self) -> str:
        """The resource name."""
        return f"{self.fleet.name}/devices/{self.device}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices that run releases of one model.

    Attributes:
        model: resource name of the model, "" for any.
        stage: the stage that a release must hold before it rolls out here, "" for none.
        device_count: devices that are not revoked.
        offered_release: what its devices should run, "" when nothing.
    """

    key: FleetKey
    model: str
    stage: str
    description: str
    create_us: int
    device_count: int = 0
    offered_release: str = ""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A one-time token, without its secret.

    Attributes:
        secret_hash: hexadecimal SHA-256 of the secret.
        root_version: the root metadata whose digest the token names.
        public_key: the key that used it, hexadecimal; "" while it is unused.
        device: the device that it became.
    """

    token_id: str
    fleet: FleetKey
    secret_hash: str
    root_version: int
    expire_us: int
    public_key: str = ""
    device: str = ""


class DeviceState(Enum):
    """How a device stands."""

    ENROLLED = "ENROLLED"
    HEALTHY = "HEALTHY"
    FAILED = "FAILED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a device refused or failed, in its own words."""

    reason: str
    message: str
    release: str = ""
    rollout: str = ""


@dataclass(frozen=True, slots=True)
class Installed:
    """What a device's active slot holds."""

    release: str
    bundle_digest: str
    rollout: str
    slot: str


@dataclass(frozen=True, slots=True)
class Device:
    """A device and what it last said.

    Attributes:
        public_key: raw Ed25519 key, hexadecimal.
        key_id: hexadecimal SHA-256 of it.
        host: the machine in the fields of a HardwarePin.
        install_us: when it first reported what is installed, 0 while nothing is, or no report tells it.
    """

    key: DeviceKey
    state: DeviceState
    public_key: str
    key_id: str
    host: Mapping[str, Any]
    agent_version: str
    enrol_us: int
    last_seen_us: int
    install_us: int = 0
    installed: Installed | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a device said once.

    Attributes:
        kind: "installed", "refused", "failed", "rolled-back" or "seen".
        details: JSON object.
    """

    key: DeviceKey
    number: int
    kind: str
    release: str
    bundle_digest: str
    reason: str
    message: str
    details: str
    create_us: int
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class BundleFileRecord:
    """One file of a bundle."""

    path: str
    digest: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """A bundle that was made.

    Attributes:
        digest: of the manifest, "sha256:…".
        pin: the HardwarePin as JSON.
        manifest: the manifest's bytes as text.
    """

    project: str
    digest: str
    release: str
    artifact: str
    pin: Mapping[str, Any]
    size_bytes: int
    files: tuple[BundleFileRecord, ...]
    manifest: str
    create_us: int


class RolloutState(Enum):
    """How a rollout stands. COMPLETED: every device has it; it stays what the fleet is offered."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class RolloutCounts:
    """Devices by how they stand towards a rollout."""

    pending: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def complete(self) -> bool:
        """Whether every device has it; a fleet without devices has nothing complete."""
        return self.succeeded > 0 and not self.pending and not self.failed


@dataclass(frozen=True, slots=True)
class Rollout:
    """A release offered to a fleet.

    Attributes:
        sequence: grows with every rollout of the project; the newest that is not cancelled is offered.
        reason: why it was started.
        state_reason: why it was paused, resumed or cancelled last.
        revision: grows with every change; its etag.
        choices: of each board with several artifacts, which goes first, settled when the rollout began.
    """

    project: str
    rollout: str
    sequence: int
    fleet: FleetKey
    release: str
    state: RolloutState
    reason: str
    creator: str
    create_us: int
    update_us: int
    revision: int
    traceparent: str = ""
    choices: tuple[Choice, ...] = ()
    state_reason: str = ""
    counts: RolloutCounts = field(default_factory=RolloutCounts)

    @property
    def name(self) -> str:
        """The resource name."""
        return f"projects/{self.project}/rollouts/{self.rollout}"

    @property
    def etag(self) -> str:
        """What a change must name to be made only if nothing else changed."""
        return f'"{self.revision}"'


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who did what."""

    number: int
    project: str
    actor: str
    service: str
    method: str
    resource: str
    reason: str
    create_us: int
