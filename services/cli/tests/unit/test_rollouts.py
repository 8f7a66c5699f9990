"""How long a rollout is waited for, and what is said of how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from boardwright.api.delivery.v1.delivery_pb2 import Device, Fleet, Rollout
from boardwright.cli.app import app
from boardwright.cli.commands.fleets import device_rows

FLEET = "projects/default/fleets/cameras"
RELEASE = "projects/default/models/digits/releases/2"
ACTIVE, COMPLETED, CANCELLED = Rollout.STATE_ACTIVE, Rollout.STATE_COMPLETED, Rollout.STATE_CANCELLED


def rollout(state: Rollout.State, done: int = 0, pending: int = 0, failed: int = 0) -> Rollout:
    return Rollout(
        name="projects/default/rollouts/cameras-1",
        fleet=FLEET,
        release=RELEASE,
        state=state,
        succeeded_count=done,
        pending_count=pending,
        failed_count=failed,
    )


def run(monkeypatch: pytest.MonkeyPatch, client: SimpleNamespace, *arguments: str) -> int:
    monkeypatch.setattr("boardwright.cli.commands.rollouts.client_of", lambda _: nullcontext(client))
    with pytest.raises(SystemExit) as ended:
        app(["rollout", *arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (rollout(COMPLETED, done=2), 0),
        (rollout(ACTIVE, done=1, failed=1), 3),  # it stays active, but no device will change its mind
        (rollout(CANCELLED, done=1, pending=1), 3),
    ],
)
@pytest.mark.parametrize("arguments", [("watch", "cameras-1"), ("start", "cameras", "digits@r2", "--wait")])
def test_a_rollout_is_waited_for_until_every_device_has_answered(
    last: Rollout,
    code: int,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def watch(name: str) -> Iterator[Rollout]:
        yield rollout(ACTIVE, pending=2)
        yield rollout(ACTIVE, done=1, pending=1)
        yield last
        if last.state == ACTIVE:
            pytest.fail("nothing more would come")

    def first(*_: Any, **__: Any) -> Rollout:
        return rollout(ACTIVE, pending=2)

    client = SimpleNamespace(rollouts=SimpleNamespace(get=first, create=first, watch=watch))
    assert run(monkeypatch, client, *arguments) == code
    told = capsys.readouterr()
    assert f"{last.succeeded_count} done, {last.pending_count} waiting, {last.failed_count} fail" in told.out
    assert ("Not every device runs digits@r2: boardwright device ls cameras" in told.err) is bool(code)


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        ("projects/default/models/digits/releases/1", "cameras is offered digits@r1 again"),
        ("", "cameras is offered nothing now: its devices keep what they run"),
    ],
)
def test_a_cancelled_rollout_says_what_the_fleet_goes_back_to(
    offered: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = SimpleNamespace(
        rollouts=SimpleNamespace(cancel=lambda name, reason: rollout(CANCELLED)),
        fleets=SimpleNamespace(get=lambda name: Fleet(name=name, offered_release=offered)),
    )
    assert run(monkeypatch, client, "cancel", "cameras-1") == 0
    assert capsys.readouterr().err == f"{said}\n"


def test_a_device_tells_since_when_it_runs_what_and_by_which_rollout() -> None:
    device = Device(name=f"{FLEET}/devices/cam-1", release=RELEASE, rollout="projects/default/rollouts/c-1")
    device.install_time.FromSeconds(1_800_000_000)
    rows = dict(device_rows(device))
    assert (rows["runs"], rows["rollout"]) == ("digits@r2", "c-1") and rows["since"].startswith("2027-01-1")
    assert dict(device_rows(Device(name=device.name)))["since"] == ""
