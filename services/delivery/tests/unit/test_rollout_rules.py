"""The rules of rollouts, without any store."""

from __future__ import annotations

from dataclasses import replace

from boardwright.delivery.domain.fitting import nearest_misfit
from boardwright.delivery.domain.resources import (
    FleetKey,
    Rollout,
    RolloutCounts,
    RolloutState,
)
from boardwright.delivery.domain.rollouts import changed, index_of, settle
from boardwright.model import HardwarePin

FLEET = FleetKey("default", "line-1")
ROLLOUT = Rollout("default", "one", 1, FLEET, "releases/1", RolloutState.ACTIVE, "", "me", 1, 1, revision=1)


def test_a_fleet_without_a_rollout_is_offered_nothing() -> None:
    assert index_of(FLEET, None, []).offer_for("any") is None


def test_a_rollout_settles_only_when_all_have_it() -> None:
    assert settle(ROLLOUT, RolloutCounts(pending=1, succeeded=1), 9).state is RolloutState.ACTIVE
    assert settle(ROLLOUT, RolloutCounts(), 9).state is RolloutState.ACTIVE
    done = settle(ROLLOUT, RolloutCounts(succeeded=1), 9)
    assert (done.state, done.revision, done.update_us) == (RolloutState.COMPLETED, 2, 9)
    paused = replace(ROLLOUT, state=RolloutState.PAUSED)
    assert settle(paused, RolloutCounts(succeeded=1), 9).state is RolloutState.PAUSED
    assert changed(ROLLOUT, RolloutState.ACTIVE, "again", 9) == ROLLOUT


def test_why_it_was_started_stays_beside_why_it_was_paused() -> None:
    started = replace(ROLLOUT, reason="first release")
    paused = changed(started, RolloutState.PAUSED, "looks odd", 9)
    resumed = changed(paused, RolloutState.ACTIVE, "", 10)
    done = settle(replace(resumed, state_reason="seen to"), RolloutCounts(succeeded=1), 11)
    told = [(rollout.reason, rollout.state_reason) for rollout in (paused, resumed, done)]
    assert told == [("first release", "looks odd"), ("first release", ""), ("first release", "")]


def test_the_nearest_misfit_is_told() -> None:
    pin = HardwarePin(architecture="aarch64", board="raspberry-pi-5").to_json()
    near = HardwarePin(architecture="x86_64", board="other").to_json()
    host = {"architecture": "x86_64", "board": "x86-64"}
    assert nearest_misfit([pin, near], [host]) == "built for board other, this is x86-64"
    assert nearest_misfit([HardwarePin(architecture="x86_64").to_json()], [host]) == ""
    assert nearest_misfit([pin], []) == ""
    assert nearest_misfit([], [host]) == "the release has no bundle"
