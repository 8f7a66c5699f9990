"""The rules of rollouts, without any store."""

from __future__ import annotations

from dataclasses import replace

from boardwright.delivery.domain.fitting import nearest_misfit
from boardwright.delivery.domain.resources import (
    Device,
    DeviceKey,
    DeviceState,
    FleetKey,
    Installed,
    Refusal,
    Rollout,
    RolloutCounts,
    RolloutState,
)
from boardwright.delivery.domain.rollouts import changed, count, index_of, offered, settle
from boardwright.model import HardwarePin

FLEET = FleetKey("default", "line-1")
ROLLOUT = Rollout("default", "one", 1, FLEET, "releases/1", RolloutState.ACTIVE, "", "me", 1, 1, revision=1)


def device(
    name: str, *, release: str = "", refused: str = "", state: DeviceState = DeviceState.ENROLLED
) -> Device:
    installed = Installed(release, "sha256:1", "", "a") if release else None
    refusal = Refusal("GOLDEN_MISMATCH", "m", "", refused) if refused else None
    return Device(DeviceKey(FLEET, name), state, "", "", {}, "1", 1, 1, installed, refusal)


def test_counts() -> None:
    devices = [
        device("has", release="releases/1"),
        device("has-again", release="releases/1", refused=ROLLOUT.name),
        device("refused", refused=ROLLOUT.name),
        device("refused-another", refused="projects/default/rollouts/zero"),
        device("gone", release="releases/1", state=DeviceState.REVOKED),
    ]
    assert count(ROLLOUT, devices) == RolloutCounts(pending=1, succeeded=2, failed=1)


def test_the_newest_that_was_not_cancelled_is_offered() -> None:
    old = replace(ROLLOUT, state=RolloutState.COMPLETED)
    new = replace(ROLLOUT, rollout="two", sequence=2)
    assert offered([old, new]) == new
    assert offered([old, replace(new, state=RolloutState.CANCELLED)]) == old
    assert offered([]) is None
    assert index_of(FLEET, None, []).offer_for("any") is None


def test_a_rollout_settles_only_when_all_have_it() -> None:
    assert settle(ROLLOUT, RolloutCounts(pending=1, succeeded=1), 9).state is RolloutState.ACTIVE
    assert settle(ROLLOUT, RolloutCounts(), 9).state is RolloutState.ACTIVE
    done = settle(ROLLOUT, RolloutCounts(succeeded=1), 9)
    assert (done.state, done.revision, done.update_us) == (RolloutState.COMPLETED, 2, 9)
    paused = replace(ROLLOUT, state=RolloutState.PAUSED)
    assert settle(paused, RolloutCounts(succeeded=1), 9).state is RolloutState.PAUSED
    assert changed(ROLLOUT, RolloutState.ACTIVE, "again", 9) == ROLLOUT


def test_the_nearest_misfit_is_told() -> None:
    pin = HardwarePin(architecture="aarch64", board="raspberry-pi-5").to_json()
    near = HardwarePin(architecture="x86_64", board="other").to_json()
    host = {"architecture": "x86_64", "board": "x86-64"}
    assert nearest_misfit([pin, near], [host]) == "built for board other, this is x86-64"
    assert nearest_misfit([HardwarePin(architecture="x86_64").to_json()], [host]) == ""
    assert nearest_misfit([pin], []) == ""
    assert nearest_misfit([], [host]) == "the release has no bundle"
