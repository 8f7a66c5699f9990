"""What operators ask about bundles and rollouts. Every rule about them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from boardwright.content.digest import Digest
from boardwright.content.oci import EMPTY_CONFIG
from boardwright.database.listing import Page
from boardwright.delivery import errors
from boardwright.delivery.auditing import Caller
from boardwright.delivery.domain.bundling import ArtifactFacts, ReleaseFacts, plan_bundle
from boardwright.delivery.domain.fitting import nearest_misfit
from boardwright.delivery.domain.preference import Contender, prefer
from boardwright.delivery.domain.resources import (
    BundleFileRecord,
    BundleRecord,
    DeviceState,
    FleetKey,
    Rollout,
    RolloutState,
)
from boardwright.delivery.domain.rollouts import RUNNING, changed, settle
from boardwright.delivery.ports import (
    Blobs,
    Intent,
    Records,
    Releases,
    Store,
)
from boardwright.delivery.publishing import Publisher, now_us
from boardwright.device.errors import InvalidDocument
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.names import check_id
from boardwright.telemetry import current_traceparent

_REFERENCE = "delivery-bundle-{}"
_EMPTY_CONFIG = b"{}"
"""The blob behind `EMPTY_CONFIG`: tools that pull a bundle ask for it."""


class RolloutsService:
    """The use cases of bundles and rollouts; who calls is `boardwright.rpc.auth.current_principal()`."""

    def __init__(self, store: Store, releases: Releases, blobs: Blobs, publisher: Publisher) -> None:
        self._store = store
        self._releases = releases
        self._blobs = blobs
        self._publisher = publisher

    # Bundles

    async def create_bundles(self, project: str, release: str) -> list[BundleRecord]:
        """The bundles of a release, one per Artifact; making them again gives the same.

        Raises:
            NotFound: the registry's reasons.
            FailedPrecondition: BUNDLE_IMPOSSIBLE.
        """
        return await self._bundles(project, release, await self._releases.facts(release))

    async def _bundles(self, project: str, release: str, facts: ReleaseFacts) -> list[BundleRecord]:
        caller = Caller.current()
        made = [await self._make_bundle(project, entry) for entry in facts.artifacts]

        def store(records: Records) -> list[BundleRecord]:
            for bundle in made:
                records.put_bundle(bundle)
            records.add_audit_event(caller.deed(project, "CreateBundles", release, ""))
            return records.bundles_of(project, release)

        return await self._store.write(store)

    async def list_bundles(self, project: str, page: Page) -> tuple[list[BundleRecord], str]:
        """By digest."""
        return await self._store.read(lambda records: records.list_bundles(project, page))

    async def _make_bundle(self, project: str, facts: ArtifactFacts) -> BundleRecord:
        record, documents = _planned(project, facts)
        for document in (*documents, _EMPTY_CONFIG, record.manifest.encode()):
            await self._blobs.store(project, document)
        held = sorted({record.digest, str(EMPTY_CONFIG.digest), *(file.digest for file in record.files)})
        await self._blobs.hold(project, _REFERENCE.format(Digest.parse(record.digest).hex[:40]), held)
        return record

    # Rollouts

    async def create_rollout(
        self,
        project: str,
        rollout_id: str,
        fleet: FleetKey,
        release: str,
        reason: str,
        intent: Intent,
        *,
        validate_only: bool = False,
    ) -> Rollout:
        """Offer a release to a fleet.

        Raises:
            NotFound: FLEET_NOT_FOUND; the registry's reasons.
            FailedPrecondition: ROLLOUT_ACTIVE, RELEASE_NOT_PROMOTED, NO_BUNDLE_FITS, BUNDLE_IMPOSSIBLE.
            AlreadyExists: ROLLOUT_EXISTS.
            InvalidArgument: FIELD_INVALID.
            Unavailable: SIGNING_UNAVAILABLE.
        """
        if fleet.project != project:
            raise InvalidArgument(
                "FIELD_INVALID", f"{fleet.name} is not in projects/{project}", field="fleet"
            )
        if rollout_id:
            check_id(rollout_id, "rollout_id")
        caller = Caller.current()
        earlier = await self._store.read(lambda records: records.recall(caller.actor, intent))
        if earlier is not None:
            await self._publisher.publish(fleet)
            return await self.rollout(project, earlier.rpartition("/")[2])
        facts = await self._check_release(fleet, release)
        choices = prefer([Contender(entry.artifact, entry.pin, entry.latencies) for entry in facts.artifacts])
        traceparent = facts.traceparent or current_traceparent()
        if validate_only:
            bundles = [_planned(project, entry)[0] for entry in facts.artifacts]
        else:
            bundles = await self._bundles(project, release, facts)

        def create(records: Records) -> Rollout:
            made = records.recall(caller.actor, intent)
            if made is not None:
                return _rollout(records, project, made.rpartition("/")[2])
            rollout = _plan_rollout(records, project, rollout_id, fleet, release, reason, bundles)
            rollout = replace(rollout, creator=caller.actor, traceparent=traceparent, choices=choices)
            if validate_only:
                return rollout
            if not records.add_rollout(rollout):
                raise errors.rollout_exists(rollout.name)
            records.remember(caller.actor, intent, rollout.name)
            records.add_audit_event(caller.deed(project, "CreateRollout", rollout.name, reason))
            records.announce(rollout.name, "rollout.created")
            return rollout

        if validate_only:
            return await self._store.read(create)
        rollout = await self._store.write(create, key=project)
        await self._publisher.publish(fleet)
        return rollout

    async def _check_release(self, fleet: FleetKey, release: str) -> ReleaseFacts:
        """What the registry says of a release, if the fleet may run it at all."""
        stored = await self._store.read(lambda records: records.fleet(fleet))
        if stored is None:
            raise errors.fleet_not_found(fleet.name)
        model = release.partition("/releases/")[0]
        if stored.model and model != stored.model:
            raise errors.release_of_other_model(release, stored.model)
        if stored.stage:
            holds = await self._releases.stage_holds(model, stored.stage)
            if holds != release:
                raise errors.release_not_promoted(release, stored.stage, holds)
        return await self._releases.facts(release)

    async def rollout(self, project: str, rollout: str) -> Rollout:
        """A rollout with its counts. Raises: NotFound ROLLOUT_NOT_FOUND."""
        return await self._store.read(lambda records: _rollout(records, project, rollout))

    async def list_rollouts(self, project: str, page: Page) -> tuple[list[Rollout], str]:
        """Newest first, with counts."""

        def look(records: Records) -> tuple[list[Rollout], str]:
            found, token = records.list_rollouts(project, page)
            return [_counted(records, rollout) for rollout in found], token

        return await self._store.read(look)

    async def watch_rollout(self, project: str, rollout: str) -> AsyncIterator[Rollout]:
        """The rollout as it stands, then after each change until it has ended. Raises: ROLLOUT_NOT_FOUND."""
        last: Rollout | None = None
        async for _ in self._store.watch(f"projects/{project}/rollouts/{rollout}"):
            current = await self.rollout(project, rollout)
            if current != last:
                yield current
            if current.state not in RUNNING:
                return
            last = current

    async def pause_rollout(self, project: str, rollout: str, reason: str, etag: str) -> Rollout:
        """No further device installs.

        Raises:
            NotFound: ROLLOUT_NOT_FOUND.
            FailedPrecondition: ROLLOUT_ENDED.
            Aborted: ETAG_MISMATCH.
        """
        return await self._change(project, rollout, "PauseRollout", reason, etag, _pause)

    async def resume_rollout(self, project: str, rollout: str, reason: str, etag: str) -> Rollout:
        """Devices install again. Raises: as `pause_rollout`, and FailedPrecondition ROLLOUT_ACTIVE."""
        return await self._change(project, rollout, "ResumeRollout", reason, etag, _resume)

    async def cancel_rollout(self, project: str, rollout: str, reason: str, etag: str) -> Rollout:
        """Withdraw the release; devices go back to what was offered before. Raises: as `pause_rollout`."""
        return await self._change(project, rollout, "CancelRollout", reason, etag, _cancel)

    async def _change(
        self,
        project: str,
        rollout_id: str,
        method: str,
        reason: str,
        etag: str,
        next_state: Callable[[Records, Rollout], RolloutState],
    ) -> Rollout:
        caller = Caller.current()

        def change(records: Records) -> Rollout:
            rollout = _rollout(records, project, rollout_id)
            if etag and etag != rollout.etag:
                raise errors.etag_mismatch(rollout.name)
            after = changed(rollout, next_state(records, rollout), reason, now_us())
            if after.revision != rollout.revision:
                records.update_rollout(after)
                records.add_audit_event(caller.deed(project, method, rollout.name, reason))
                records.announce(rollout.name, "rollout.changed")
            return after

        after = await self._store.write(change)
        await self._publisher.publish(after.fleet)
        return after


def _rollout(records: Records, project: str, rollout: str) -> Rollout:
    found = records.rollout(project, rollout)
    if found is None:
        raise errors.rollout_not_found(f"projects/{project}/rollouts/{rollout}")
    return _counted(records, found)


def _counted(records: Records, rollout: Rollout) -> Rollout:
    return replace(rollout, counts=records.count(rollout))


def _plan_rollout(
    records: Records,
    project: str,
    rollout_id: str,
    fleet: FleetKey,
    release: str,
    reason: str,
    bundles: Sequence[BundleRecord],
) -> Rollout:
    # Whatever is older than what is offered has ended, or cannot be resumed before that is cancelled.
    standing = records.offered(fleet)
    if standing is not None and standing.state is RolloutState.ACTIVE:
        raise errors.rollout_active(standing.name)
    devices = [device for device in records.devices_of(fleet) if device.state is not DeviceState.REVOKED]
    misfit = nearest_misfit([bundle.pin for bundle in bundles], [device.host for device in devices])
    if misfit:
        raise errors.no_bundle_fits(release, misfit)
    sequence = records.next_sequence(project)
    now = now_us()
    rollout = Rollout(
        project=project,
        rollout=rollout_id or f"{fleet.fleet[:40]}-{sequence}",
        sequence=sequence,
        fleet=fleet,
        release=release,
        state=RolloutState.ACTIVE,
        reason=reason,
        creator="",
        create_us=now,
        update_us=now,
        revision=1,
    )
    return settle(rollout, records.count(rollout), now)  # the devices may have it already


def _not_ended(rollout: Rollout) -> None:
    if rollout.state not in RUNNING:
        raise errors.rollout_ended(rollout.name, rollout.state.value.lower())


def _pause(records: Records, rollout: Rollout) -> RolloutState:
    _not_ended(rollout)
    return RolloutState.PAUSED


def _resume(records: Records, rollout: Rollout) -> RolloutState:
    _not_ended(rollout)
    newest = records.offered(rollout.fleet)
    if newest is not None and newest.rollout != rollout.rollout:
        raise errors.rollout_superseded(rollout.name)
    return RolloutState.COMPLETED if rollout.counts.complete else RolloutState.ACTIVE


def _cancel(records: Records, rollout: Rollout) -> RolloutState:
    # A completed rollout can be withdrawn as well: its fleet goes back to what it ran before.
    return RolloutState.CANCELLED


def _planned(project: str, facts: ArtifactFacts) -> tuple[BundleRecord, tuple[bytes, ...]]:
    """An artifact's bundle, and the small documents that must be stored before it is one."""
    try:
        planned = plan_bundle(facts)
    except (InvalidDocument, ValueError) as error:
        raise errors.bundle_impossible(facts.artifact, str(error)) from error
    bundle = planned.bundle
    manifest = bundle.to_manifest().to_bytes()
    files = tuple(
        BundleFileRecord(file.name, str(file.digest), file.size_bytes, file.media_type)
        for file in bundle.files
    )
    record = BundleRecord(
        project=project,
        digest=str(Digest.of(manifest)),
        release=facts.release,
        artifact=facts.artifact,
        pin=dict(facts.pin),
        size_bytes=bundle.size_bytes,
        files=files,
        manifest=manifest.decode(),
        create_us=now_us(),
    )
    return record, planned.documents
