"""Enrolment, signatures, reports and downloads, on both databases."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from boardwright.content import Digest
from boardwright.database.listing import Page
from boardwright.delivery.domain.resources import DeviceState
from boardwright.device.tokens import EnrolmentToken
from boardwright.rpc.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)


async def test_a_token_makes_one_device_and_names_the_root(operator, make_device, fleet_key) -> None:
    await operator.fleet()
    stored, text, root = await operator.fleets.create_token(fleet_key, 60)
    assert EnrolmentToken.parse(text).root == Digest.of(root)
    assert text not in stored.secret_hash and EnrolmentToken.parse(text).secret not in repr(stored)
    device = make_device("cam-1")
    first = await device.enrol(text)
    assert (first.root, first.tuf_path) == (root, "tuf/projects/default/fleets/line-1")
    assert await device.enrol(text) == first  # a lost answer is asked for again
    with pytest.raises(PermissionDenied) as used:
        await make_device("cam-2").enrol(text)
    assert used.value.reason == "TOKEN_USED"
    stored_device = await operator.fleets.device(device.key)
    assert stored_device.state is DeviceState.ENROLLED
    assert stored_device.host["board"] == "x86-64"


async def test_of_many_devices_with_one_token_one_enrols(operator, make_device, fleet_key) -> None:
    await operator.fleet()
    _, text, _ = await operator.fleets.create_token(fleet_key, 60)
    devices = [make_device(f"cam-{number}") for number in range(8)]
    answers = await asyncio.gather(*(device.enrol(text) for device in devices), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, PermissionDenied)]
    assert len(refused) == 7 and {error.reason for error in refused} == {"TOKEN_USED"}
    assert (await operator.fleets.fleet(fleet_key)).device_count == 1


async def test_one_report_sent_eight_times_is_taken_once(operator, enrol) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    body = b'{"kind": "failed", "refusal": {"reason": "DISK_FULL", "message": "m"}}'
    request = device.sign(body)
    answers = await asyncio.gather(
        *(operator.devices.report(request, body) for _ in range(8)), return_exceptions=True
    )
    assert sum(answer is None for answer in answers) == 1
    reports, _ = await operator.fleets.list_reports(device.key, Page())
    assert [report.reason for report in reports] == ["DISK_FULL"]


async def test_tokens_that_do_not_hold(operator, make_device, fleet_key, monkeypatch) -> None:
    await operator.fleet()
    _, text, _ = await operator.fleets.create_token(fleet_key, 60)
    device = make_device("cam-1")
    other = "B" if text[-50] == "A" else "A"
    for wrong in ("nonsense", text[:-50] + other + text[-49:]):
        with pytest.raises(PermissionDenied) as invalid:
            await device.enrol(wrong)
        assert invalid.value.reason == "TOKEN_INVALID"
    with pytest.raises(Unauthenticated) as unsigned:
        await device.enrol(text, agent_version="2.0")
    assert unsigned.value.reason == "SIGNATURE_INVALID"
    later = time.time_ns() // 1000 + 61_000_000
    monkeypatch.setattr("boardwright.delivery.device_service.now_us", lambda: later)
    with pytest.raises(PermissionDenied) as expired:
        await device.enrol(text)
    assert expired.value.reason == "TOKEN_EXPIRED"
    with pytest.raises(NotFound):
        await operator.fleets.device(device.key)


async def test_an_id_belongs_to_one_key_until_it_is_revoked(operator, enrol, make_device, fleet_key) -> None:
    await operator.fleet()
    first = await enrol("cam-1")
    other = make_device("cam-1")
    _, text, _ = await operator.fleets.create_token(fleet_key, 0)
    with pytest.raises(AlreadyExists) as taken:
        await other.enrol(text)
    assert taken.value.reason == "DEVICE_EXISTS"
    await operator.fleets.revoke_device(first.key, "stolen")
    with pytest.raises(PermissionDenied) as revoked:
        await first.say("seen")
    assert revoked.value.reason == "DEVICE_REVOKED"
    await other.enrol(text)
    assert (await operator.fleets.device(first.key)).state is DeviceState.ENROLLED


async def test_signatures_nonces_and_clocks(operator, enrol, make_device) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    await device.report({"kind": "seen"}, nonce="once")
    with pytest.raises(Unauthenticated) as replayed:
        await device.report({"kind": "seen"}, nonce="once")
    assert replayed.value.reason == "SIGNATURE_INVALID" and "before" in replayed.value.message
    with pytest.raises(Unauthenticated) as skewed:
        await device.report({"kind": "seen"}, at=int(time.time()) + 4000)
    assert skewed.value.reason == "TIMESTAMP_SKEWED" and skewed.value.metadata["server_time"]
    with pytest.raises(Unauthenticated) as changed:
        await device.report({"kind": "seen"}, sent=b'{"kind":"installed"}')
    assert changed.value.reason == "SIGNATURE_INVALID"
    with pytest.raises(NotFound) as unknown:
        await make_device("ghost").say("seen")
    assert unknown.value.reason == "DEVICE_NOT_FOUND"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "party"},
        {"kind": "seen", "installed": 3},
        {"kind": "seen", "refusal": {"reason": 1}},
        {"kind": "seen", "host": {"cpu_features": 7}},
        {"kind": "seen", "host": {"board": ["x86-64"]}},
        {"kind": "seen", "host": {"driver": "d" * 201}},
        {"kind": "seen", "host": {"driver": "\0"}},
        {"kind": "seen", "host": {"driver": "\ud800"}},
        {"kind": "seen", "details": {"figure": float("nan")}},
        {"kind": "seen", "details": ["x"]},
    ],
    ids=repr,
)
async def test_malformed_reports(operator, enrol, document) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    with pytest.raises(InvalidArgument) as error:
        await device.report(document)
    assert error.value.reason == "REPORT_INVALID"


async def test_a_reports_words_are_kept_as_far_as_a_database_holds_them(operator, enrol) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    words = {"reason": "DISK", "message": "half a pair \ud800, a NUL \0"}
    document = {"kind": "failed", "refusal": words, "host": {"board": "x86-64", "hobby": "none"}}
    await device.report({**document, "details": {"text": "\0" * 10_000}})
    ((report,), _) = await operator.fleets.list_reports(device.key, Page())
    assert report.message == "half a pair ?, a NUL \N{REPLACEMENT CHARACTER}"
    assert json.loads(report.details) == {"left_out_characters": 60_012}
    assert (await operator.fleets.device(device.key)).host == {"board": "x86-64"}


async def test_a_device_that_is_revoked_while_it_reports_stays_revoked(operator, enrol) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    body = b'{"kind": "seen"}'
    request, write = device.sign(body), operator.devices._store.write

    async def revoked_first(change, /, *, key=""):
        await operator.fleets.revoke_device(device.key, "stolen")
        return await write(change, key=key)

    operator.devices._store = Between(operator.devices._store, revoked_first)
    with pytest.raises(PermissionDenied) as refused:
        await operator.devices.report(request, body)
    assert refused.value.reason == "DEVICE_REVOKED"
    assert (await operator.fleets.device(device.key)).state is DeviceState.REVOKED


class Between:
    """A store whose write is another's."""

    def __init__(self, store, write) -> None:
        self.read, self.write = store.read, write


async def test_reports_tell_what_runs_and_why_one_refused(operator, enrol) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    await device.say("installed", "releases/1", "rollouts/1")
    await device.say("seen", "releases/1", "rollouts/1")
    stored = await operator.fleets.device(device.key)
    assert stored.state is DeviceState.HEALTHY and stored.installed.slot == "a"
    since = stored.install_us
    refusal = {"reason": "GOLDEN_MISMATCH", "message": "2 of 2 differ", "release": "releases/2"}
    installed = {"release": "releases/1", "bundle_digest": "sha256:1", "rollout": "rollouts/1", "slot": "a"}
    await device.report({"kind": "refused", "installed": installed, "refusal": refusal})
    stored = await operator.fleets.device(device.key)
    assert stored.state is DeviceState.FAILED and stored.refusal.message == "2 of 2 differ"
    assert stored.installed.release == "releases/1" and stored.install_us == since > stored.enrol_us
    reports, _ = await operator.fleets.list_reports(device.key, Page())
    assert [(report.kind, report.reason) for report in reports] == [
        ("refused", "GOLDEN_MISMATCH"),
        ("installed", ""),
    ]
    await device.say("seen", "releases/1", "rollouts/1")
    assert (await operator.fleets.device(device.key)).refusal is None
    await device.say("installed", "releases/3", "rollouts/3")
    assert (await operator.fleets.device(device.key)).install_us > since


async def test_downloads_are_for_bundles_of_the_fleet(operator, enrol) -> None:
    await operator.fleet()
    device = await enrol("cam-1")
    mine, other = operator.registry.add_release(1), operator.registry.add_release(2)
    await operator.rollout(mine, "first")
    await operator.rollouts.create_bundles("default", other)
    digest = operator.registry.releases[mine][0].files[0].digest
    url, size = await device.download(digest)
    assert digest in url and size == len(b"model 1 x86-64")
    await device.download(digest, nonce="once")
    with pytest.raises(Unauthenticated) as replayed:
        await device.download(digest, nonce="once")
    assert replayed.value.reason == "SIGNATURE_INVALID" and "before" in replayed.value.message
    foreign = operator.registry.releases[other][0].files[0].digest
    for unknown in (foreign, str(Digest.of(b"secret"))):
        with pytest.raises(NotFound) as error:
            await device.download(unknown)
        assert error.value.reason == "BLOB_NOT_FOUND"


@pytest.mark.parametrize(
    "path",
    [
        "metadata/../../keys",
        "../keys/x",
        "metadata/9.root.json",
        "targets/../metadata/timestamp.json",
        "",
        "/etc/passwd",
    ],
)
async def test_only_files_of_the_repository_are_served(operator, fleet_key, path: str) -> None:
    await operator.fleet()
    assert b"timestamp" in operator.devices.tuf_file(fleet_key, "metadata/timestamp.json")
    with pytest.raises(NotFound) as error:
        operator.devices.tuf_file(fleet_key, path)
    assert error.value.reason == "TUF_FILE_NOT_FOUND"


async def test_device_lists_filter_and_page(operator, enrol, fleet_key) -> None:
    await operator.fleet()
    for number in range(5):
        await enrol(f"cam-{number}", "x86-64" if number % 2 else "raspberry-pi-5")
    first, token = await operator.fleets.list_devices(fleet_key, Page(size=2))
    rest, end = await operator.fleets.list_devices(fleet_key, Page(size=3, token=token))
    assert [device.key.device for device in first + rest] == [
        f"cam-{number}" for number in range(5)
    ] and not end
    found, _ = await operator.fleets.list_devices(fleet_key, Page(filter='board = "x86-64"'))
    assert len(found) == 2
    assert (await operator.fleets.fleet(fleet_key)).device_count == 5
