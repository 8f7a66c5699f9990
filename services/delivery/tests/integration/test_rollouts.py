"""Bundles and rollouts, on both databases, down to the signed files."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from boardwright.content.oci import EMPTY_CONFIG
from boardwright.database.listing import Page
from boardwright.delivery.domain.preference import MeasuredLatency
from boardwright.delivery.domain.resources import RolloutCounts, RolloutState
from boardwright.delivery.trust.policy import RolePolicy, TrustPolicy
from boardwright.device.bundle import Bundle
from boardwright.rpc.auth import Principal, set_principal
from boardwright.rpc.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)


async def test_bundles_are_deterministic_and_held(operator) -> None:
    release = operator.registry.add_release(1, "x86-64", "raspberry-pi-5")
    made = await operator.rollouts.create_bundles("default", release)
    assert len(made) == 2
    assert [b.digest for b in await operator.rollouts.create_bundles("default", release)] == [
        b.digest for b in made
    ]
    bundle = Bundle.parse(made[0].manifest.encode())
    names = {file.role: file.name for file in bundle.files}
    assert names == {
        "model": "model.onnx",
        "golden": "golden.npz",
        "pin": "pin.json",
        "input-spec": "input-spec.json",
        "output-spec": "output-spec.json",
        "labels": "labels.json",
        "runtime": "runtime.json",
    }
    assert operator.registry.blobs[made[0].digest].decode() == made[0].manifest
    held = operator.registry.references[f"delivery-bundle-{made[0].digest[7:47]}"]
    assert set(held) <= set(operator.registry.blobs) | {str(file.digest) for file in bundle.files}
    assert set(held) == {
        made[0].digest,
        str(EMPTY_CONFIG.digest),
        *(str(file.digest) for file in bundle.files),
    }
    found, _ = await operator.rollouts.list_bundles("default", Page(filter='board = "raspberry-pi-5"'))
    assert len(found) == 1


async def test_an_artifact_that_cannot_be_bundled(operator) -> None:
    release = operator.registry.add_release(1)
    operator.registry.releases[release] = [replace(operator.registry.releases[release][0], files=())]
    with pytest.raises(FailedPrecondition) as error:
        await operator.rollouts.create_bundles("default", release)
    assert error.value.reason == "BUNDLE_IMPOSSIBLE" and "build it again" in error.value.message


async def test_a_fleet_once(operator, fleet_key, make_intent) -> None:
    one = make_intent("CreateFleet", "id-1")
    fleet = await operator.fleets.create_fleet(fleet_key, "", "", "first", one)
    assert await operator.fleets.create_fleet(fleet_key, "", "", "first", one) == fleet
    with pytest.raises(AlreadyExists) as exists:
        await operator.fleets.create_fleet(fleet_key, "", "", "first", make_intent("CreateFleet", "id-2"))
    assert exists.value.reason == "FLEET_EXISTS"
    with pytest.raises(AlreadyExists) as reused:
        await operator.fleets.create_fleet(
            fleet_key, "", "", "x", make_intent("CreateFleet", "id-1", "other")
        )
    assert reused.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(InvalidArgument):
        await operator.fleets.create_fleet(
            replace(fleet_key, fleet="Bad Id"), "", "", "", make_intent("CreateFleet")
        )
    events, _ = await operator.fleets.list_audit_events("default", Page())
    assert [event.method for event in events] == ["CreateFleet"]


async def test_a_rollout_is_signed_offered_and_completed(operator, enrol, fleet_key) -> None:
    await operator.fleet()
    one, two = await enrol("cam-1"), await enrol("cam-2")
    release = operator.registry.add_release(1, "x86-64", "raspberry-pi-5")
    rollout = await operator.rollout(release, "first")
    assert rollout.counts == RolloutCounts(pending=2)
    offer = operator.index().offer_for("cam-1")
    assert (offer.release, offer.rollout, offer.paused) == (release, rollout.name, False)
    assert (
        offer.traceparent == rollout.traceparent and "0af7651916cd43dd8448eb211c80319c" in offer.traceparent
    )
    targets = operator.targets()
    assert {bundle.path for bundle in offer.bundles} == set(targets) - {"index.json"}
    for bundle in offer.bundles:
        assert targets[bundle.path]["custom"] == {
            "pin": bundle.pin, "release": release, "rollout": rollout.name
        }  # fmt: skip
    assert (await operator.fleets.fleet(fleet_key)).offered_release == release
    await one.say("installed", release, rollout.name)
    seen = await operator.rollouts.rollout("default", "first")
    assert (seen.state, seen.counts) == (RolloutState.ACTIVE, RolloutCounts(pending=1, succeeded=1))
    await two.report(
        {"kind": "refused", "refusal": {"reason": "GOLDEN_MISMATCH", "message": "m", "rollout": rollout.name}}
    )
    assert (await operator.rollouts.rollout("default", "first")).counts == RolloutCounts(0, 1, 1)
    await two.say("installed", release, rollout.name)
    done = await operator.rollouts.rollout("default", "first")
    assert (done.state, done.counts) == (RolloutState.COMPLETED, RolloutCounts(succeeded=2))
    assert operator.index().offer_for("cam-3").release == release  # who enrols later gets it too


async def test_of_two_toolchains_the_faster_is_offered_first_and_stays_it(operator, enrol) -> None:
    await operator.fleet()
    await enrol("cam-1")
    release = operator.registry.add_release(1)
    (first,) = operator.registry.releases[release]
    second = replace(first, artifact=f"{first.artifact}-z", pin={**first.pin, "runtime": "openvino"})
    slow, fast = ((MeasuredLatency("x86-64", "a machine", 1, p50_ms, 1),) for p50_ms in (2.0, 0.5))
    operator.registry.releases[release] = [
        replace(first, latencies=slow), replace(second, latencies=fast)
    ]  # fmt: skip
    rollout = await operator.rollout(release, "first")
    (choice,) = rollout.choices
    assert choice.artifacts == (second.artifact, first.artifact) and "0.5 ms" in choice.because
    runtimes = [bundle.pin["runtime"] for bundle in operator.index().offer_for("cam-1").bundles]
    assert runtimes == ["openvino", "onnxruntime"]

    operator.registry.releases[release] = [first, second]  # what is measured later moves nobody
    await operator.publisher.publish(rollout.fleet)
    assert (await operator.rollouts.rollout("default", "first")).choices == rollout.choices
    assert operator.index().offer_for("cam-1").bundles[0].pin["runtime"] == "openvino"


async def test_devices_count_by_what_they_hold_and_what_they_refused_last(operator, enrol) -> None:
    await operator.fleet()
    release = operator.registry.add_release(1)
    names = ("has", "has-again", "refused", "refused-another", "gone")
    devices = {name: await enrol(name) for name in names}
    rollout = await operator.rollout(release)
    for name in ("has", "has-again", "gone"):
        await devices[name].say("installed", release, rollout.name)
    refusal = {"reason": "GOLDEN_MISMATCH", "message": "m"}
    held = {"release": release, "bundle_digest": "", "rollout": rollout.name, "slot": "a"}
    await devices["has-again"].report(
        {"kind": "failed", "installed": held, "refusal": {**refusal, "rollout": rollout.name}}
    )
    await devices["refused"].report({"kind": "refused", "refusal": {**refusal, "rollout": rollout.name}})
    await devices["refused-another"].report({"kind": "refused", "refusal": {**refusal, "rollout": "zero"}})
    await operator.fleets.revoke_device(devices["gone"].key, "")
    counts = (await operator.rollouts.rollout("default", rollout.rollout)).counts
    assert (counts.pending, counts.succeeded, counts.failed) == (1, 2, 1)


async def test_a_rollout_is_complete_once_the_last_device_that_lacked_it_is_revoked(operator, enrol) -> None:
    await operator.fleet()
    works, dead = await enrol("cam-1"), await enrol("cam-2")
    release = operator.registry.add_release(1)
    rollout = await operator.rollout(release, "first")
    await works.say("installed", release, rollout.name)
    await operator.fleets.revoke_device(dead.key, "stolen")
    done = await operator.rollouts.rollout("default", "first")
    assert (done.state, done.counts) == (RolloutState.COMPLETED, RolloutCounts(succeeded=1))


async def test_a_rollout_of_what_every_device_runs_is_complete_at_once(operator, enrol) -> None:
    """Nothing that a device says afterwards would tell anybody so."""
    await operator.fleet()
    device = await enrol("cam-1")
    release = operator.registry.add_release(1)
    await device.say("installed", release, "projects/default/rollouts/by-hand")
    assert (await operator.rollout(release, "first")).state is RolloutState.COMPLETED
    assert operator.index().offer_for("cam-1").release == release


async def test_pause_resume_cancel(operator, enrol) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    first, second = operator.registry.add_release(1), operator.registry.add_release(2)
    rollout = await operator.rollout(first, "first")
    await device.say("installed", first, rollout.name)
    rollout = await operator.rollout(second, "second")
    with pytest.raises(FailedPrecondition) as active:
        await operator.rollout(first, "third")
    assert active.value.reason == "ROLLOUT_ACTIVE"
    paused = await operator.rollouts.pause_rollout("default", "second", "looks odd", rollout.etag)
    assert (paused.state, paused.state_reason) == (RolloutState.PAUSED, "looks odd")
    assert operator.index().offer_for("cam-1").paused
    with pytest.raises(Aborted) as stale:
        await operator.rollouts.resume_rollout("default", "second", "", rollout.etag)
    assert stale.value.reason == "ETAG_MISMATCH"
    await operator.rollouts.resume_rollout("default", "second", "", paused.etag)
    resumed = await operator.rollouts.rollout("default", "second")
    assert (resumed.reason, resumed.state_reason) == (rollout.reason, "")
    assert not operator.index().offer_for("cam-1").paused
    await operator.rollouts.cancel_rollout("default", "second", "wrong colours", "")
    offer = operator.index().offer_for("cam-1")
    assert (offer.release, offer.rollout) == (first, "projects/default/rollouts/first")
    for change in (operator.rollouts.pause_rollout, operator.rollouts.resume_rollout):
        with pytest.raises(FailedPrecondition) as ended:
            await change("default", "second", "", "")
        assert ended.value.reason == "ROLLOUT_ENDED"
    assert (
        await operator.rollouts.cancel_rollout("default", "second", "", "")
    ).state is RolloutState.CANCELLED
    await operator.rollouts.cancel_rollout("default", "first", "", "")
    assert operator.index().offer_for("cam-1") is None
    with pytest.raises(NotFound):
        await operator.rollouts.pause_rollout("default", "none", "", "")
    events, _ = await operator.fleets.list_audit_events("default", Page(filter='method = "CancelRollout"'))
    assert [event.reason for event in events] == ["", "wrong colours"]


async def test_deeds_name_who_did_them(operator, enrol, fleet_key) -> None:
    set_principal(Principal("gateway", "service", on_behalf_of="ada"))
    await operator.fleet()
    device = await enrol("cam-1")
    rollout = await operator.rollout(operator.registry.add_release(1), "first")
    assert rollout.creator == "ada"
    await operator.rollouts.cancel_rollout("default", "first", "enough", "")
    await operator.fleets.revoke_device(device.key, "stolen")
    events, _ = await operator.fleets.list_audit_events("default", Page())
    assert [(event.method, event.actor, event.service) for event in reversed(events)] == [
        ("CreateFleet", "ada", "gateway"),
        ("CreateEnrolmentToken", "ada", "gateway"),
        ("EnrolDevice", device.key.name, "gateway"),
        ("CreateBundles", "ada", "gateway"),
        ("CreateRollout", "ada", "gateway"),
        ("CancelRollout", "ada", "gateway"),
        ("RevokeDevice", "ada", "gateway"),
    ]


async def test_what_may_not_roll_out(operator, enrol) -> None:
    await operator.fleet(stage="production")
    await enrol("cam-1")
    release = operator.registry.add_release(1)
    with pytest.raises(FailedPrecondition) as unpromoted:
        await operator.rollout(release)
    assert unpromoted.value.reason == "RELEASE_NOT_PROMOTED" and "now nothing" in unpromoted.value.message
    operator.registry.stages["production"] = release
    assert (await operator.rollout(release, validate_only=True)).counts.pending == 1
    assert not (await operator.rollouts.list_rollouts("default", Page()))[0]
    assert not (await operator.rollouts.list_bundles("default", Page()))[0] and not operator.registry.blobs
    other = operator.registry.add_release(2, "jetson-orin-nx")
    operator.registry.stages["production"] = other
    with pytest.raises(FailedPrecondition) as misfit:
        await operator.rollout(other)
    assert misfit.value.reason == "NO_BUNDLE_FITS"
    assert "built for board jetson-orin-nx, this is x86-64" in misfit.value.message
    with pytest.raises(InvalidArgument):
        await operator.rollout("projects/default/models/faces/releases/1")
    operator.registry.stages["production"] = "projects/default/models/digits/releases/9"
    with pytest.raises(NotFound) as unknown:
        await operator.rollout("projects/default/models/digits/releases/9")
    assert unknown.value.reason == "RELEASE_NOT_FOUND"


async def test_the_same_request_again_gives_the_same_rollout(operator, fleet_key, make_intent) -> None:
    await operator.fleet()
    release = operator.registry.add_release(1)
    one = make_intent("CreateRollout", "id-1")
    first = await operator.rollouts.create_rollout("default", "", fleet_key, release, "", one)
    assert await operator.rollouts.create_rollout("default", "", fleet_key, release, "", one) == first
    assert first.rollout == "line-1-1"
    assert len((await operator.rollouts.list_rollouts("default", Page()))[0]) == 1


async def test_of_many_rollouts_at_once_one_begins(operator, fleet_key) -> None:
    await operator.fleet()
    releases = [operator.registry.add_release(number) for number in range(1, 7)]
    answers = await asyncio.gather(
        *(operator.rollout(release, f"r{number}") for number, release in enumerate(releases)),
        return_exceptions=True,
    )
    begun = [answer for answer in answers if not isinstance(answer, Exception)]
    refused = [answer for answer in answers if isinstance(answer, FailedPrecondition)]
    assert len(begun) == 1 and len(refused) == 5
    assert {error.reason for error in refused} == {"ROLLOUT_ACTIVE"}
    assert operator.index().offer_for("any").release == begun[0].release


async def test_watchers_see_every_change_until_the_end(operator, enrol) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    release = operator.registry.add_release(1)
    rollout = await operator.rollout(release, "first")
    seen = []
    begun = asyncio.Event()

    async def watch() -> None:
        async for current in operator.rollouts.watch_rollout("default", "first"):
            seen.append((current.state, current.counts.succeeded))
            begun.set()

    task = asyncio.create_task(watch())
    await asyncio.wait_for(begun.wait(), 10)
    await operator.rollouts.pause_rollout("default", "first", "", "")
    while len(seen) < 2:
        await asyncio.sleep(0.01)
    await operator.rollouts.resume_rollout("default", "first", "", "")
    await device.say("installed", release, rollout.name)
    await asyncio.wait_for(task, 10)
    assert seen[0] == (RolloutState.ACTIVE, 0) and seen[1] == (RolloutState.PAUSED, 0)
    assert seen[-1] == (RolloutState.COMPLETED, 1)
    with pytest.raises(NotFound):
        async for _ in operator.rollouts.watch_rollout("default", "none"):
            pass


async def test_a_publication_that_failed_is_made_up_for(operator, fleet_key) -> None:
    await operator.fleet()
    release = operator.registry.add_release(1)
    keys = list((operator.folder / "keys").rglob("targets.*.pem"))
    for key in keys:
        key.rename(operator.folder / key.name)
    with pytest.raises(Unavailable) as error:
        await operator.rollout(release, "first")
    assert error.value.reason == "SIGNING_UNAVAILABLE" and "backup" in error.value.message
    assert operator.index().offer_for("cam-1") is None
    assert await operator.publisher.publish_all() == 30.0
    for key in keys:
        (operator.folder / key.name).rename(key)
    assert await operator.publisher.publish_all() > 30.0
    assert operator.index().offer_for("cam-1").release == release


async def test_metadata_is_signed_again_before_it_ends(operator, fleet_key) -> None:
    """A timer does it: nothing calls the service meanwhile."""
    short = RolePolicy(timedelta(seconds=3), timedelta(seconds=2))
    operator.repositories._policy = TrustPolicy(timestamp=short)
    await operator.fleet()

    def version() -> int:
        data = operator.repositories.read(fleet_key, "metadata/timestamp.json")
        return int(json.loads(data)["signed"]["version"])

    first = version()
    timer = asyncio.create_task(operator.publisher.keep_signed())
    try:
        async with asyncio.timeout(30):
            while version() < first + 2:
                await asyncio.sleep(0.05)
    finally:
        timer.cancel()


async def test_a_restart_signs_every_fleet_again(operator, fleet_key) -> None:
    await operator.fleet()
    before = operator.repositories.read(fleet_key, "metadata/timestamp.json")
    assert await operator.publisher.publish_all() == 3600.0
    assert operator.repositories.read(fleet_key, "metadata/timestamp.json") == before


async def test_rollout_lists_filter(operator, fleet_key) -> None:
    await operator.fleet()
    for number in range(3):
        release = operator.registry.add_release(number + 1)
        await operator.rollout(release, f"r{number}")
        await operator.rollouts.cancel_rollout("default", f"r{number}", "", "")
    found, _ = await operator.rollouts.list_rollouts("default", Page(filter=f'fleet = "{fleet_key.name}"'))
    assert [rollout.rollout for rollout in found] == ["r2", "r1", "r0"]
    for written, count in (("STATE_ACTIVE", 0), ("STATE_CANCELLED", 3), ("cancelled", 3)):
        found, _ = await operator.rollouts.list_rollouts("default", Page(filter=f"state = {written}"))
        assert len(found) == count
    fleets, _ = await operator.fleets.list_fleets("default", Page())
    assert [fleet.key for fleet in fleets] == [fleet_key]
