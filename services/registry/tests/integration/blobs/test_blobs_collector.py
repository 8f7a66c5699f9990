from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from boardwright.content import Digest, StoreUnavailable
from boardwright.content.directory import DirectoryStore
from boardwright.registry.blobs_collector import BlobCollector
from boardwright.registry.blobs_service import BlobsService
from boardwright.registry.domain.blobs import DAY_SECONDS, BlobPolicy, Collected
from boardwright.registry.storage.blobs import SqlBlobRepository
from boardwright.rpc.auth import Principal, RoleGrant, set_principal
from boardwright.rpc.errors import NotFound, Unavailable


@pytest.fixture(autouse=True)
def alice() -> None:
    set_principal(Principal("alice", "user", (RoleGrant("developer", "*"),)))


def stored(store: DirectoryStore) -> set[Digest]:
    return {stat.digest for stat in store.blobs()}


async def test_unreferenced_content_lives_for_the_grace_period(
    service: BlobsService, collector: BlobCollector, store: DirectoryStore, clock, policy: BlobPolicy
) -> None:
    digest = (await service.create("p", b"bytes")).digest
    clock.now += policy.grace_seconds - 1
    assert await collector.collect() == Collected(0, 0, 0)
    clock.now += 2
    assert await collector.collect(validate_only=True) == Collected(1, 5, 0)
    assert stored(store) == {digest}
    assert await collector.collect() == Collected(1, 5, 0)
    assert stored(store) == set()
    with pytest.raises(NotFound):
        await service.get("p", digest)
    await service.create("p", b"bytes")
    assert await service.read("p", digest) == b"bytes"


@pytest.mark.parametrize("again", ["create", "start_upload"])
async def test_already_there_renews(
    service: BlobsService, collector: BlobCollector, clock, policy: BlobPolicy, again: str
) -> None:
    digest = (await service.create("p", b"bytes")).digest
    clock.now += policy.grace_seconds - 1
    if again == "create":
        await service.create("p", b"bytes")
    else:
        assert (await service.start_upload("p", str(digest), 5)).record.completed
    clock.now += policy.grace_seconds - 1
    assert await collector.collect() == Collected(0, 0, 0)
    assert await service.read("p", digest) == b"bytes"


async def test_references_keep_and_letting_go_starts_the_grace_period(
    service: BlobsService, collector: BlobCollector, store: DirectoryStore, clock, policy: BlobPolicy
) -> None:
    one, two = [(await service.create("p", data)).digest for data in (b"one", b"two")]
    await service.set_reference("p", "r", [str(one), str(two)])
    clock.now += 100 * DAY_SECONDS
    assert await collector.collect() == Collected(0, 0, 0)
    await service.set_reference("p", "r", [str(one)])
    assert await collector.collect() == Collected(0, 0, 0)
    clock.now += policy.grace_seconds + 1
    assert await collector.collect() == Collected(1, 3, 0)
    assert stored(store) == {one}
    await service.delete_reference("p", "r")
    clock.now += policy.grace_seconds + 1
    assert await collector.collect() == Collected(1, 3, 0)


async def test_each_project_keeps_for_itself(
    service: BlobsService, collector: BlobCollector, store: DirectoryStore, clock, policy: BlobPolicy
) -> None:
    digest = (await service.create("p", b"bytes")).digest
    await service.create("q", b"bytes")
    await service.set_reference("p", "r", [str(digest)])
    clock.now += policy.grace_seconds + 1
    assert await collector.collect() == Collected(0, 0, 0)
    assert await service.read("p", digest) == b"bytes"
    with pytest.raises(NotFound):
        await service.get("q", digest)
    assert stored(store) == {digest}


async def test_it_looks_at_a_few_blobs_at_a_time_and_writes_for_none_that_is_kept(
    service: BlobsService,
    collector: BlobCollector,
    repository: SqlBlobRepository,
    store: DirectoryStore,
    clock,
    policy: BlobPolicy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write that looks at everything would hold up every push for as long as that takes."""
    monkeypatch.setattr("boardwright.registry.blobs_collector._BATCH", 2)
    digests = [(await service.create("p", f"{n}".encode())).digest for n in range(9)]
    await service.set_reference("p", "r", [str(digest) for digest in digests[3:]])
    clock.now += policy.grace_seconds + 1
    assert await collector.collect() == Collected(3, 3, 0)
    assert stored(store) == set(digests[3:])

    async def refused(*_: object, **__: object) -> None:
        raise AssertionError("a collection that finds nothing has nothing to write")

    monkeypatch.setattr(repository._database, "write", refused)
    assert await collector.collect() == Collected(0, 0, 0)


@pytest.mark.parametrize(("batch", "by_the_first"), [(500, 2), (1, 5)])
async def test_what_takes_long_to_delete_is_deleted_by_one_collector_alone(
    service: BlobsService,
    collector: BlobCollector,
    repository: SqlBlobRepository,
    store: DirectoryStore,
    clock,
    policy: BlobPolicy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    batch: int,
    by_the_first: int,
) -> None:
    """Of two, the later could delete what was stored again after the earlier."""
    monkeypatch.setattr("boardwright.registry.blobs_collector._BATCH", batch)
    for n in range(5):
        await service.create("p", f"{n}".encode())
    clock.now += policy.grace_seconds + 1
    loop, deleted, delete = asyncio.get_running_loop(), [], store.delete
    other = BlobCollector(repository, DirectoryStore(tmp_path / "store"), policy, clock=clock)

    def slow(digest: Digest) -> None:
        clock.now += 200
        deleted.append(digest)
        if len(deleted) == by_the_first:
            meanwhile = asyncio.run_coroutine_threadsafe(other.collect(), loop).result(120)
            assert meanwhile == Collected(0, 0, 0)
        delete(digest)

    monkeypatch.setattr(store, "delete", slow)
    assert (await collector.collect()).blobs == len(deleted) == by_the_first
    clock.now += 601
    assert (await other.collect()).blobs == 5 - by_the_first
    assert stored(store) == set()


async def test_expired_uploads_and_leftovers_go(
    service: BlobsService, collector: BlobCollector, store: DirectoryStore, clock, policy: BlobPolicy
) -> None:
    view = await service.start_upload("p", str(Digest.of(b"bytes")), 5)
    clock.now += policy.upload_seconds + 1
    assert await collector.collect() == Collected(0, 0, 1)
    assert list(store.uploads()) == []
    with pytest.raises(NotFound):
        await service.get_upload("p", view.record.upload)
    store.begin_upload(5)  # as if the process died before the database knew
    clock.now += 100 * 365 * DAY_SECONDS
    await collector.collect()
    assert list(store.uploads()) == []


async def test_content_stored_but_never_published_goes(
    service: BlobsService,
    collector: BlobCollector,
    repository: SqlBlobRepository,
    store: DirectoryStore,
    clock,
    policy: BlobPolicy,
) -> None:
    digest = Digest.of(b"bytes")
    now = int(clock() * 1e6)
    assert await repository.claim(digest, 5, now, now + policy.claim_seconds * 1_000_000)
    store.put(b"bytes")
    assert await collector.collect() == Collected(0, 0, 0)
    clock.now += policy.claim_seconds + 1
    assert await collector.collect() == Collected(1, 5, 0)
    assert stored(store) == set()


async def test_what_is_being_deleted_is_not_acknowledged(
    service: BlobsService,
    collector: BlobCollector,
    repository: SqlBlobRepository,
    store: DirectoryStore,
    clock,
    policy: BlobPolicy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = (await service.create("p", b"bytes")).digest
    clock.now += policy.grace_seconds + 1

    def away(_: Digest) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", away)
        with pytest.raises(StoreUnavailable):
            await collector.collect()
    monkeypatch.setattr("boardwright.registry.blobs_service._CLAIM_WAITS_SECONDS", (0.0,))
    with pytest.raises(Unavailable) as busy:
        await service.create("p", b"bytes")
    assert busy.value.reason == "BLOB_BEING_COLLECTED"
    # A collector that died is followed by another one, after its last request must have timed out.
    assert await collector.collect() == Collected(0, 0, 0)
    clock.now += 601
    assert await collector.collect() == Collected(1, 5, 0)
    await service.create("p", b"bytes")
    assert await service.read("p", digest) == b"bytes"


async def test_pushes_and_collections_at_once_lose_nothing(
    service: BlobsService, collector: BlobCollector, clock, policy: BlobPolicy
) -> None:
    """Whatever the order, content that was acknowledged within the grace period can be read."""

    async def push(round_: int) -> None:
        for number in range(5):
            data = f"content {number}".encode()
            await service.create("p", data)
            assert await service.read("p", Digest.of(data)) == data

    for round_ in range(5):
        clock.now += policy.grace_seconds + 1
        await asyncio.gather(push(round_), collector.collect(), push(round_), collector.collect())
