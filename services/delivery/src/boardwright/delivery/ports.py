"""What the delivery service needs from outside itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from boardwright.database.listing import Page
from boardwright.delivery.domain.bundling import ReleaseFacts
from boardwright.delivery.domain.resources import (
    AuditEvent,
    BundleRecord,
    Device,
    DeviceKey,
    Fleet,
    FleetKey,
    Report,
    Rollout,
    RolloutCounts,
    StoredToken,
)
from boardwright.delivery.trust.metadata import WantedTarget
from boardwright.delivery.trust.repository import Publication

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Intent:
    """A request with its `request_id`: the same again gives the same answer.

    Attributes:
        method: the RPC's name.
        request_id: "" when the caller gave none.
        fingerprint: what tells two requests apart.
    """

    method: str
    request_id: str
    fingerprint: str


class Records(Protocol):
    """The stored records, inside one transaction. `list_…` methods give a page and the next page's token."""

    def recall(self, actor: str, intent: Intent) -> str | None:
        """What an earlier request with this id made, None if it is new. Raises: REQUEST_ID_REUSED."""
        ...

    def remember(self, actor: str, intent: Intent, made: str) -> None:
        """Store what a new request made."""
        ...

    def add_audit_event(self, event: AuditEvent) -> None:
        """Record a deed."""
        ...

    def list_audit_events(self, project: str, page: Page) -> tuple[list[AuditEvent], str]:
        """Newest first."""
        ...

    def announce(self, subject: str, kind: str) -> None:
        """Add to the event log; watchers wake once the transaction is durable."""
        ...

    def add_fleet(self, fleet: Fleet) -> bool:
        """Store a new fleet; False if the id is taken."""
        ...

    def fleet(self, key: FleetKey) -> Fleet | None:
        """A fleet with its device count and offered release."""
        ...

    def list_fleets(self, project: str, page: Page) -> tuple[list[Fleet], str]:
        """By id."""
        ...

    def every_fleet(self) -> list[FleetKey]:
        """All fleets of all projects."""
        ...

    def add_token(self, token: StoredToken, creator: str, now_us: int) -> None:
        """Store a new token."""
        ...

    def token(self, token_id: str) -> StoredToken | None:
        """A token."""
        ...

    def use_token(self, token: StoredToken) -> None:
        """Store which key used a token and what device it became."""
        ...

    def put_device(self, device: Device) -> None:
        """Store a device, new or changed."""
        ...

    def device(self, key: DeviceKey) -> Device | None:
        """A device."""
        ...

    def devices_of(self, fleet: FleetKey) -> list[Device]:
        """All devices of a fleet."""
        ...

    def list_devices(self, fleet: FleetKey, page: Page) -> tuple[list[Device], str]:
        """By id."""
        ...

    def take_nonce(self, device: DeviceKey, nonce: str, now_us: int, keep_until_us: int) -> bool:
        """Take a nonce once; False if it was taken before. Forgets this device's old ones."""
        ...

    def add_report(self, report: Report) -> None:
        """Store a report under the device's next number; old ones beyond a limit go."""
        ...

    def list_reports(self, device: DeviceKey, page: Page) -> tuple[list[Report], str]:
        """Newest first."""
        ...

    def put_bundle(self, bundle: BundleRecord) -> None:
        """Store a bundle; the same again changes nothing."""
        ...

    def bundles_of(self, project: str, release: str) -> list[BundleRecord]:
        """The bundles of a release."""
        ...

    def list_bundles(self, project: str, page: Page) -> tuple[list[BundleRecord], str]:
        """By digest."""
        ...

    def blob_size(self, fleet: FleetKey, digest: str) -> int | None:
        """The size of a blob that belongs to a bundle which was rolled out to the fleet."""
        ...

    def next_sequence(self, project: str) -> int:
        """The next number of the project's rollouts."""
        ...

    def add_rollout(self, rollout: Rollout) -> bool:
        """Store a new rollout; False if the id is taken."""
        ...

    def update_rollout(self, rollout: Rollout) -> None:
        """Store a rollout's new state."""
        ...

    def rollout(self, project: str, rollout: str) -> Rollout | None:
        """A rollout, without counts."""
        ...

    def count(self, rollout: Rollout) -> RolloutCounts:
        """How the fleet's devices stand towards a rollout; revoked ones do not count.

        A device has it when its active slot holds the release, and failed it when its last refusal named it.
        """
        ...

    def offered(self, fleet: FleetKey) -> Rollout | None:
        """The rollout whose release a fleet is offered: the newest that was not cancelled; without counts."""
        ...

    def list_rollouts(self, project: str, page: Page) -> tuple[list[Rollout], str]:
        """Newest first, without counts."""
        ...


class Store(Protocol):
    """Transactions. Functions run in one and may run several times: no effects but on the records."""

    async def write(self, change: Callable[[Records], T], /, *, key: str = "") -> T:
        """Run a change; its result once it is durable. `key` names what it contends for."""
        ...

    async def read(self, look: Callable[[Records], T], /) -> T:
        """Look at one snapshot."""
        ...

    def watch(self, subject: str) -> AsyncIterator[None]:
        """Once now, then after everything that is announced about a subject, for ever."""
        ...


class Releases(Protocol):
    """The registry, as far as delivery asks it. Raises BoardwrightError with the registry's reasons."""

    async def facts(self, release: str) -> ReleaseFacts:
        """What is to be bundled for a release."""
        ...

    async def stage_holds(self, model: str, stage: str) -> str:
        """The release on a stage, "" when there is none."""
        ...


class Blobs(Protocol):
    """The Blobs API, as far as delivery needs it. Raises BoardwrightError."""

    async def store(self, project: str, data: bytes) -> None:
        """Make a small document visible in a project."""
        ...

    async def hold(self, project: str, reference: str, digests: Sequence[str]) -> None:
        """Keep blobs from collection."""
        ...

    async def download_url(self, project: str, digest: str, expire_seconds: int) -> str:
        """Where whoever holds the address can fetch a blob until it expires."""
        ...


class FleetRepositories(Protocol):
    """The signed repositories. Raises TrustError and OSError."""

    async def publish(self, fleet: FleetKey, wanted: Sequence[WantedTarget]) -> Publication:
        """Make a fleet's repository name exactly these files; creates it if need be."""
        ...

    async def root(self, fleet: FleetKey, version: int = 0) -> tuple[int, bytes]:
        """Version and bytes of root metadata: of ``version``, or of the newest with 0."""
        ...

    def read(self, fleet: FleetKey, path: str) -> bytes | None:
        """A served file's bytes, None when there is none."""
        ...
