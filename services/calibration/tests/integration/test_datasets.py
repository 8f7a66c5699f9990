"""Datasets, versions and samples on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from boardwright.calibration.domain.dataset import DatasetKey, State, VersionKey
from boardwright.calibration.ports import Caller, RequestId
from boardwright.database import Transaction, outbox
from boardwright.database.listing import Page
from boardwright.rpc.errors import BoardwrightError
from boardwright.samples import Box

Picture = Callable[..., bytes]
Bench = Any  # conftest.Bench
CALLER = Caller("ada", "", "Test")
KEY = DatasetKey("default", "digits")


async def refused(awaitable: object) -> BoardwrightError:
    with pytest.raises(BoardwrightError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


async def test_datasets_are_created_once(bench: Bench) -> None:
    created = await bench.service.create_dataset(
        KEY, "classification", "ten digits", CALLER, RequestId("r", "f")
    )
    assert await bench.service.dataset(KEY) == created
    again = await bench.service.create_dataset(
        KEY, "classification", "ten digits", CALLER, RequestId("r", "f")
    )
    assert again == created
    for request, reason in [(RequestId(), "DATASET_EXISTS"), (RequestId("r", "g"), "REQUEST_ID_REUSED")]:
        error = await refused(bench.service.create_dataset(KEY, "", "", CALLER, request))
        assert error.reason == reason
    assert (await refused(bench.service.dataset(DatasetKey("default", "none")))).reason == "DATASET_NOT_FOUND"
    error = await refused(
        bench.service.create_dataset(DatasetKey("default", "x"), "text", "", CALLER, RequestId())
    )
    assert error.reason == "FIELD_INVALID"


async def test_datasets_are_listed_by_page_and_filter(bench: Bench) -> None:
    for number in range(7):
        task = "detection" if number % 2 else ""
        await bench.service.create_dataset(DatasetKey("default", f"d{number}"), task, "", CALLER, RequestId())
    await bench.service.create_dataset(DatasetKey("other", "d9"), "", "", CALLER, RequestId())
    first, token = await bench.service.datasets("default", Page(size=5))
    second, end = await bench.service.datasets("default", Page(size=5, token=token))
    assert [d.key.dataset for d in first + second] == [f"d{n}" for n in range(7)] and end == ""
    found, _ = await bench.service.datasets("default", Page(filter='task = "detection"'))
    assert [d.key.dataset for d in found] == ["d1", "d3", "d5"]
    error = await refused(bench.service.datasets("other", Page(token=token)))
    assert error.reason == "PAGE_TOKEN_MISMATCH"
    assert (
        await refused(bench.service.datasets("default", Page(filter="tsk = 1")))
    ).reason == "FILTER_INVALID"


async def test_versions_are_numbered_without_gaps(bench: Bench) -> None:
    await bench.open()
    opened = await asyncio.gather(
        *(
            bench.service.create_version(KEY, ("a",), CALLER, RequestId(f"r{n % 8}", f"{n % 8}"))
            for n in range(16)
        )
    )
    assert sorted({version.key.number for version in opened}) == list(range(2, 10))
    listed, token = await bench.service.versions(KEY, Page(size=4))
    rest, _ = await bench.service.versions(KEY, Page(size=10, token=token))
    assert [version.key.number for version in listed + rest] == list(range(9, 0, -1))
    found, _ = await bench.service.versions(KEY, Page(filter='state = "sealed"'))
    assert found == []


async def test_versions_that_are_not_there(bench: Bench) -> None:
    await bench.open()
    for name, reason in [
        ("9", "DATASET_VERSION_NOT_FOUND"),
        ("latest", "DATASET_VERSION_NOT_FOUND"),
        ("first", "FIELD_INVALID"),
    ]:
        assert (await refused(bench.service.version(KEY, name))).reason == reason
    error = await refused(bench.service.create_version(KEY, ("a", "a"), CALLER, RequestId()))
    assert error.reason == "FIELD_INVALID" and "two classes are called 'a'" in error.message
    missing = DatasetKey("default", "none")
    for call in (
        bench.service.create_version(missing, (), CALLER, RequestId()),
        bench.service.versions(missing, Page()),
        bench.service.version(missing, "latest"),
        bench.service.version(missing, "1"),
    ):
        assert (await refused(call)).reason == "DATASET_NOT_FOUND"
    error = await refused(bench.service.version(DatasetKey("default", KEY.dataset[:-1]), "latest"))
    assert error.message.endswith(f"did you mean {KEY.dataset}?")


async def test_samples_are_added_once(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    samples = bench.pack(
        [("a.png", picture(), 0), ("b.png", picture((9, 9, 9)), 1), ("c.png", picture(), None)]
    )
    assert await bench.service.add_samples(version.key, samples, CALLER) == (3, 3)
    assert await bench.service.add_samples(version.key, [*samples, samples[0]], CALLER) == (0, 3)
    current = await bench.service.version(KEY, "1")
    assert (current.sample_count, current.labelled_count) == (3, 2)
    assert current.size_bytes == sum(sample.size_bytes for sample in samples)
    assert (await bench.service.samples(version.key, Page()))[0] == samples
    assert set().union(*bench.blobs.held.values()) == {sample.pack_digest for sample in samples}


async def test_samples_are_listed_by_page_and_class(bench: Bench, picture: Picture) -> None:
    version = await bench.open(("a", "b", "c"), "detection")
    box = Box(0, 0.5, 0.5, 0.1, 0.1)
    labels = [(box,), (box, replace(box, class_id=2)), (), None, (replace(box, class_id=2),) * 3]
    samples = bench.pack([(f"{n}.png", picture((n, 0, 0)), label) for n, label in enumerate(labels)])
    await bench.service.add_samples(version.key, samples, CALLER)
    first, token = await bench.service.samples(version.key, Page(size=2))
    second, _ = await bench.service.samples(version.key, Page(size=9, token=token))
    assert first + second == samples
    for text, expected in [
        ("class_id = 2", ["1.png", "4.png"]),
        ("class_id < 2", ["0.png", "1.png"]),
        ("class_id = 1", []),
    ]:
        found, _ = await bench.service.samples(version.key, Page(filter=text))
        assert [sample.name for sample in found] == expected


async def test_samples_that_are_refused(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    (sample,) = bench.pack([("a.png", picture(), 0)])
    other = "sha256:" + "0" * 64
    for bad, reason, text in [
        (replace(sample, name="../a"), "SAMPLE_INVALID", "'../a'"),
        (replace(sample, label=7), "LABEL_INVALID", "class 7 is beyond"),
        (replace(sample, label=()), "LABEL_INVALID", "class ids"),
        (replace(sample, pack_digest=other), "BLOB_NOT_FOUND", other),
        (replace(sample, pack_offset=1 << 30), "SAMPLE_INVALID", "beyond the end of its pack"),
    ]:
        batch = [replace(sample, name="good.png"), bad]
        assert (await refused(bench.service.add_samples(version.key, batch, CALLER))).reason == reason
        error = await refused(bench.service.add_samples(version.key, [bad], CALLER))
        assert error.reason == reason and text in error.message
    assert (await bench.service.version(KEY, "1")).sample_count == 0
    await bench.service.add_samples(version.key, [sample], CALLER)
    for changed in (replace(sample, digest=other), replace(sample, label=1)):
        error = await refused(bench.service.add_samples(version.key, [changed], CALLER))
        assert error.reason == "SAMPLE_NAME_USED"
    error = await refused(bench.service.add_samples(version.key, [sample] * 2001, CALLER))
    assert error.reason == "FIELD_INVALID"
    error = await refused(bench.service.add_samples(VersionKey(KEY, 9), [sample], CALLER))
    assert error.reason == "DATASET_VERSION_NOT_FOUND"


async def test_concurrent_adders_lose_nothing(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    samples = bench.pack([(f"{n:03d}.png", picture((n, n, n)), n % 2) for n in range(64)])
    chunks = [samples[start : start + 16] for start in range(0, 64, 8)]
    await asyncio.gather(*(bench.service.add_samples(version.key, chunk, CALLER) for chunk in chunks))
    found, _ = await bench.service.samples(version.key, Page(size=100))
    assert sorted(sample.name for sample in found) == [sample.name for sample in samples]
    numbered = await bench.repository.samples_from(version, 0, 100)
    assert [entry.sequence for entry in numbered] == list(range(64))


async def test_every_change_is_audited_and_told(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    samples = bench.pack([("a.png", picture(), 0)])
    await bench.service.add_samples(version.key, samples, CALLER)
    await bench.service.add_samples(version.key, samples, CALLER)
    assert (await bench.sealed(version)).state is State.SEALED
    events, _ = await bench.service.audit_events("default", Page())
    assert [event.resource.count("/") for event in events] == [5, 5, 5, 3]
    assert {event.actor for event in events} == {"ada"}
    found, _ = await bench.service.audit_events("default", Page(filter='actor = "eve"'))
    assert found == []
    first, token = await bench.service.audit_events("default", Page(size=3))
    last, _ = await bench.service.audit_events("default", Page(size=3, token=token))
    assert [event.id for event in first + last] == [event.id for event in events]
    told = await bench.database.read(lambda tx: outbox.read(tx, (0, 0), 100))
    assert [event.kind for event in told] == [
        "dataset.created",
        "dataset_version.created",
        "dataset_version.samples_added",
        "dataset_version.sealed",
    ]


async def test_look_ups_by_name_read_an_index_and_not_the_version(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    await bench.service.add_samples(version.key, bench.pack([("a.png", picture(), 0)]), CALLER)

    def plan(tx: Transaction) -> str:
        query = "SELECT key, digest, label FROM samples WHERE key IN (:a, :b)"
        explain = "EXPLAIN QUERY PLAN " if tx.dialect == "sqlite" else "EXPLAIN "
        if tx.dialect == "postgresql":
            tx.execute("SET LOCAL enable_seqscan = off")
        return str([dict(row) for row in tx.all(explain + query, a="1/a.png", b="1/b.png")])

    assert "uq_samples_key" in (text := await bench.database.read(plan)) or "sqlite_autoindex" in text
