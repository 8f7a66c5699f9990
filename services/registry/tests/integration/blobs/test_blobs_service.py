from __future__ import annotations

import asyncio

import pytest

from boardwright.content import Digest, StoreUnavailable
from boardwright.content.directory import DirectoryStore
from boardwright.registry.blobs_service import BlobsService, UploadView
from boardwright.registry.domain.blobs import BlobPolicy
from boardwright.registry.storage.blobs import SqlBlobRepository
from boardwright.rpc.auth import Principal, RoleGrant, set_principal
from boardwright.rpc.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from boardwright.rpc.grants import Grant
from boardwright.testing.blob_store import TWO_PARTS_BYTES, send, some_bytes


@pytest.fixture(autouse=True)
def alice() -> None:
    be("alice")


def be(name: str) -> None:
    set_principal(Principal(name, "user", (RoleGrant("developer", "*"),)))


def be_worker(*digests: Digest, prefix: str = "lease-1") -> None:
    grant = Grant("worker", "p", frozenset(str(d) for d in digests), prefix, 4e9)
    set_principal(Principal("worker", "worker", (RoleGrant("worker", "p"),), grant=grant))


def send_missing(view: UploadView, data: bytes, *numbers: int) -> None:
    for number in numbers or view.requests:
        body = data[view.plan.offset(number) :][: view.plan.length(number)]
        assert send(view.requests[number], body)[0] == 200


async def upload(service: BlobsService, project: str, data: bytes) -> None:
    view = await service.start_upload(project, str(Digest.of(data)), len(data))
    await asyncio.to_thread(send_missing, view, data)
    await service.complete_upload(project, view.record.upload)


async def test_small_content(service: BlobsService) -> None:
    made = await service.create("p", b"bytes", str(Digest.of(b"bytes")))
    assert (made.digest, made.size_bytes) == (Digest.of(b"bytes"), 5)
    assert await service.create("p", b"bytes") == made
    assert await service.get("p", made.digest) == made
    assert await service.read("p", made.digest) == b"bytes"


async def test_small_content_is_checked(service: BlobsService, store: DirectoryStore) -> None:
    with pytest.raises(InvalidArgument) as mismatch:
        await service.create("p", b"bytes", str(Digest.of(b"other")))
    assert mismatch.value.reason == "DIGEST_MISMATCH"
    with pytest.raises(ResourceExhausted) as large:
        await service.create("p", bytes((1 << 20) + 1))
    assert (large.value.reason, large.value.metadata["limit_bytes"]) == ("BLOB_TOO_LARGE", str(1 << 20))
    with pytest.raises(InvalidArgument):
        await service.create("p", b"bytes", "md5:123")
    assert list(store.blobs()) == []


async def test_upload(service: BlobsService, store: DirectoryStore) -> None:
    data = some_bytes(TWO_PARTS_BYTES)
    view = await service.start_upload("p", str(Digest.of(data)), len(data))
    assert (view.plan.count, sorted(view.requests), view.received) == (2, [1, 2], frozenset())
    await asyncio.to_thread(send_missing, view, data, 2)
    again = await service.start_upload("p", str(Digest.of(data)), len(data))
    assert (again.record, again.received, sorted(again.requests)) == (view.record, frozenset({2}), [1])
    with pytest.raises(FailedPrecondition) as missing:
        await service.complete_upload("p", view.record.upload)
    assert (missing.value.reason, missing.value.metadata) == ("PARTS_MISSING", {"parts": "1"})
    with pytest.raises(NotFound):
        await service.get("p", Digest.of(data))
    await asyncio.to_thread(send_missing, again, data)
    assert (await service.get_upload("p", view.record.upload)).requests == {}
    blob = await service.complete_upload("p", view.record.upload)
    assert await service.complete_upload("p", view.record.upload) == blob
    assert (await service.get_upload("p", view.record.upload)).record.completed
    _, request, seconds = await service.download("p", blob.digest)
    assert await asyncio.to_thread(send, request) == (200, data)
    assert seconds == 900
    assert list(store.uploads()) == []
    assert (await service.start_upload("p", str(blob.digest), len(data))).record.completed


async def test_a_claim_over_the_limit_is_refused_before_anything_is_read(
    service: BlobsService, store: DirectoryStore
) -> None:
    with pytest.raises(ResourceExhausted) as refused:
        await service.start_upload("p", str(Digest.of(b"")), 10 * 10**9)
    assert refused.value.reason == "BLOB_TOO_LARGE"
    assert refused.value.metadata["limit_bytes"] == str(1 << 30)
    with pytest.raises(InvalidArgument):
        await service.start_upload("p", str(Digest.of(b"")), -1)
    assert list(store.uploads()) == []


def test_the_default_limit_refuses_ten_gigabytes() -> None:
    assert BlobPolicy().largest_bytes < 10 * 10**9


async def test_other_content_than_named_leaves_nothing(service: BlobsService, store: DirectoryStore) -> None:
    view = await service.start_upload("p", str(Digest.of(b"named")), 5)
    await asyncio.to_thread(send_missing, view, b"other")
    with pytest.raises(InvalidArgument) as mismatch:
        await service.complete_upload("p", view.record.upload)
    assert mismatch.value.reason == "DIGEST_MISMATCH"
    assert list(store.blobs()) == []
    with pytest.raises(NotFound) as gone:
        await service.complete_upload("p", view.record.upload)
    assert gone.value.reason == "UPLOAD_NOT_FOUND"
    await upload(service, "p", b"named")


async def test_a_digest_grants_nothing(service: BlobsService, store: DirectoryStore) -> None:
    digest = (await service.create("p", b"secret")).digest
    for refused in (service.get, service.read, service.download):
        with pytest.raises(NotFound) as hidden:
            await refused("q", digest)
        assert hidden.value.reason == "BLOB_NOT_FOUND"
    with pytest.raises(NotFound):
        await service.set_reference("q", "r", [str(digest)])
    # Content that is stored already travels all the same, and is stored once.
    view = await service.start_upload("q", str(digest), 6)
    assert sorted(view.requests) == [1]
    with pytest.raises(FailedPrecondition):
        await service.complete_upload("q", view.record.upload)
    await asyncio.to_thread(send_missing, view, b"secret")
    await service.complete_upload("q", view.record.upload)
    assert await service.read("q", digest) == b"secret"
    assert len(list(store.blobs())) == 1


async def test_uploads_belong_to_who_began_them(service: BlobsService) -> None:
    view = await service.start_upload("p", str(Digest.of(b"bytes")), 5)
    be("bob")
    for refused in (service.get_upload, service.complete_upload):
        with pytest.raises(NotFound) as hidden:
            await refused("p", view.record.upload)
        assert hidden.value.reason == "UPLOAD_NOT_FOUND"
    await service.cancel_upload("p", view.record.upload)
    other = await service.start_upload("p", str(Digest.of(b"bytes")), 5)
    assert other.record.upload != view.record.upload
    be("alice")
    assert (await service.get_upload("p", view.record.upload)).record == view.record
    with pytest.raises(NotFound):
        await service.get_upload("q", view.record.upload)


async def test_a_worker_reads_what_its_lease_grants(service: BlobsService) -> None:
    granted = (await service.create("p", b"input")).digest
    other = (await service.create("p", b"other")).digest
    be_worker(granted)
    assert await service.read("p", granted) == b"input"
    for refused in (service.get, service.read, service.download):
        with pytest.raises(PermissionDenied) as denied:
            await refused("p", other)
        assert denied.value.reason == "DIGEST_NOT_GRANTED"
    set_principal(Principal("worker", "worker", (RoleGrant("worker", "p"),)))
    with pytest.raises(PermissionDenied):
        await service.read("p", granted)


async def test_a_worker_uploads_under_its_lease_alone(service: BlobsService) -> None:
    be_worker(prefix="lease-1")
    view = await service.start_upload("p", str(Digest.of(b"output")), 6)
    be_worker(prefix="lease-2")
    with pytest.raises(NotFound):
        await service.get_upload("p", view.record.upload)
    be_worker(prefix="lease-1")
    await asyncio.to_thread(send_missing, view, b"output")
    assert (await service.complete_upload("p", view.record.upload)).size_bytes == 6


async def test_cancel(service: BlobsService, store: DirectoryStore) -> None:
    view = await service.start_upload("p", str(Digest.of(b"bytes")), 5)
    await service.cancel_upload("p", view.record.upload)
    await service.cancel_upload("p", view.record.upload)
    assert list(store.uploads()) == []
    with pytest.raises(NotFound):
        await service.get_upload("p", view.record.upload)


async def test_many_complete_at_once(service: BlobsService) -> None:
    data = some_bytes(1 << 20)
    view = await service.start_upload("p", str(Digest.of(data)), len(data))
    await asyncio.to_thread(send_missing, view, data)
    found = await asyncio.gather(*(service.complete_upload("p", view.record.upload) for _ in range(8)))
    assert {blob.digest for blob in found} == {Digest.of(data)}


async def test_an_upload_that_the_store_forgot_starts_anew(
    service: BlobsService, store: DirectoryStore
) -> None:
    view = await service.start_upload("p", str(Digest.of(b"bytes")), 5)
    store.abort_upload(view.record.handle)
    again = await service.start_upload("p", str(Digest.of(b"bytes")), 5)
    assert again.record.upload != view.record.upload
    await asyncio.to_thread(send_missing, again, b"bytes")
    await service.complete_upload("p", again.record.upload)


async def test_an_outage_after_storing_costs_no_second_upload(
    service: BlobsService, repository: SqlBlobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the blob, the database goes away before it knows: completing again is enough."""
    view = await service.start_upload("p", str(Digest.of(b"bytes")), 5)
    await asyncio.to_thread(send_missing, view, b"bytes")

    async def gone(*_: object, **__: object) -> None:
        raise ConnectionError("the database is gone")

    with monkeypatch.context() as patch:
        patch.setattr(repository, "publish", gone)
        with pytest.raises(ConnectionError):
            await service.complete_upload("p", view.record.upload)
        with pytest.raises(NotFound):
            await service.get("p", Digest.of(b"bytes"))
    assert (await service.complete_upload("p", view.record.upload)).size_bytes == 5
    assert await service.read("p", Digest.of(b"bytes")) == b"bytes"


async def test_a_lost_store_is_an_outage(service: BlobsService, store: DirectoryStore) -> None:
    digest = (await service.create("p", b"bytes")).digest
    store.path(digest).unlink()
    with pytest.raises(Unavailable) as damaged:
        await service.read("p", digest)
    assert damaged.value.reason == "BLOB_DAMAGED"
    (store._blobs).rename(store._root / "unmounted")
    with pytest.raises(StoreUnavailable, match="mount or restore"):
        await service.download("p", digest)


@pytest.mark.parametrize("seconds", [-1, 86_401])
async def test_download_times_are_bounded(service: BlobsService, seconds: int) -> None:
    digest = (await service.create("p", b"bytes")).digest
    with pytest.raises(InvalidArgument) as refused:
        await service.download("p", digest, seconds)
    assert refused.value.metadata["field"] == "expire_seconds"


async def test_references(service: BlobsService) -> None:
    one, two = [(await service.create("p", data)).digest for data in (b"one", b"two")]
    absent = Digest.of(b"absent")
    assert await service.set_reference("p", "r", [str(two), str(one), str(one)]) == sorted([one, two])
    with pytest.raises(NotFound) as missing:
        await service.set_reference("p", "r", [str(one), str(absent)])
    assert missing.value.metadata["digests"] == str(absent)
    await service.delete_reference("p", "r")
    await service.delete_reference("p", "r")
