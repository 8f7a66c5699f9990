"""The rules of rollouts: what a fleet is offered, when one is complete, which changes are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from boardwright.content.digest import Digest
from boardwright.delivery.domain.resources import (
    BundleRecord,
    FleetKey,
    Rollout,
    RolloutCounts,
    RolloutState,
)
from boardwright.device.index import FleetIndex, GroupOffer, OfferedBundle, bundle_path

EVERYBODY = "all"
"""The one deployment group that a rollout has so far."""

RUNNING = frozenset({RolloutState.ACTIVE, RolloutState.PAUSED})


def settle(rollout: Rollout, counts: RolloutCounts, now_us: int) -> Rollout:
    """The rollout after devices reported: an active one is completed when every device has it."""
    counted = replace(rollout, counts=counts)
    if rollout.state is RolloutState.ACTIVE and counts.complete:
        return replace(
            counted,
            state=RolloutState.COMPLETED,
            state_reason="",
            update_us=now_us,
            revision=rollout.revision + 1,
        )
    return counted


def changed(rollout: Rollout, state: RolloutState, reason: str, now_us: int) -> Rollout:
    """The rollout in another state; the same when it already is in it."""
    if rollout.state is state:
        return rollout
    return replace(rollout, state=state, state_reason=reason, update_us=now_us, revision=rollout.revision + 1)


def index_of(fleet: FleetKey, rollout: Rollout | None, bundles: Sequence[BundleRecord]) -> FleetIndex:
    """What a fleet's devices should run: bundles of one board in the order the rollout settled."""
    if rollout is None:
        return FleetIndex(fleet.name, ())

    place = {artifact: n for choice in rollout.choices for n, artifact in enumerate(choice.artifacts)}
    offers = tuple(
        OfferedBundle(bundle_path(Digest.parse(bundle.digest)), bundle.pin)
        for bundle in sorted(bundles, key=lambda b: (place.get(b.artifact, 0), b.artifact))
    )
    paused = rollout.state is RolloutState.PAUSED
    return FleetIndex(
        fleet.name,
        (GroupOffer(EVERYBODY, None, rollout.name, rollout.release, paused, offers, rollout.traceparent),),
    )
