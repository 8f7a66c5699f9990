"""What every BlobStore must do: inherit `BlobStoreContract` and give it a `store` fixture.

The store's part and download requests must lead to a real server, as they do in production.
"""

from __future__ import annotations

import http.client
import io
import random
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from boardwright.content import (
    BlobNotFound,
    BlobStore,
    BlobTooLarge,
    Digest,
    DigestMismatch,
    InvalidContent,
    Part,
    SignedRequest,
    SizeMismatch,
    UploadNotFound,
    part_plan,
)

LIFE_SECONDS = 300
TWO_PARTS_BYTES = (8 << 20) + 12_345


def some_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes that compress badly and are the same every time."""
    return random.Random(seed).randbytes(size)  # noqa: S311 (test data)


def send(request: SignedRequest, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Make a signed request; returns its status and body."""
    url = urlsplit(request.url)
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    try:
        try:
            path = f"{url.path}?{url.query}"
            connection.request(request.method, path, body, {**request.headers, **headers})
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent: the answer is there to be read
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def send_parts(store: BlobStore, handle: str, data: bytes, *numbers: int) -> None:
    """Send the parts with these numbers, or all of them."""
    plan = part_plan(len(data))
    for number in numbers or range(1, plan.count + 1):
        part = data[plan.offset(number) :][: plan.length(number)]
        status, body = send(store.part_request(handle, number, LIFE_SECONDS), part)
        assert status == 200, body


def upload(store: BlobStore, data: bytes) -> str:
    """Begin an upload and send all of it; returns its handle."""
    handle = store.begin_upload(len(data))
    send_parts(store, handle, data)
    return handle


def later_us() -> int:
    """A moment that everything now in a store is older than, by any server's clock."""
    return int((time.time() + 3600) * 1_000_000)


class BlobStoreContract:
    """The promises of `boardwright.content.store`, as tests."""

    def test_put_and_read(self, store: BlobStore, tmp_path: Path) -> None:
        for seed, size in enumerate((0, 1, 100_000)):
            data = some_bytes(size, seed)
            (tmp_path / "file").write_bytes(data)
            for source in (data, io.BytesIO(data), tmp_path / "file"):
                stat = store.put(source)
                assert (stat.digest, stat.size_bytes) == (Digest.of(data), size)
            assert store.stat(Digest.of(data)) == stat
            assert store.read(Digest.of(data), size) == data

    def test_put_more_than_one_part(self, store: BlobStore, tmp_path: Path) -> None:
        data = some_bytes(TWO_PARTS_BYTES)
        (tmp_path / "file").write_bytes(data)
        for source in (io.BytesIO(data), tmp_path / "file"):
            assert store.put(source, Digest.of(data)).size_bytes == len(data)
            assert b"".join(store.open(Digest.of(data))) == data
            store.delete(Digest.of(data))
        assert list(store.uploads()) == []

    def test_put_reads_a_stream_from_where_it_stands(self, store: BlobStore) -> None:
        stream = io.BytesIO(b"head and body")
        stream.seek(len("head and "))
        assert store.put(stream).digest == Digest.of(b"body")

    def test_put_of_other_bytes_than_named_leaves_nothing(self, store: BlobStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"other")
        named = Digest.of(b"named")
        for source in (b"other", io.BytesIO(b"other"), tmp_path / "file"):
            with pytest.raises(DigestMismatch, match="nothing was kept"):
                store.put(source, named)
        assert list(store.blobs()) == []
        store.put(b"named")
        with pytest.raises(DigestMismatch):
            store.put(tmp_path / "file", named)

    def test_put_of_a_missing_file(self, store: BlobStore, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            store.put(tmp_path / "missing")
        assert list(store.blobs()) == []

    def test_stored_once(self, store: BlobStore) -> None:
        data = some_bytes(1000)
        first = store.put(data)
        assert store.put(data) == first
        handle = upload(store, data)
        assert store.finish_upload(handle, first.digest, len(data)) == first
        store.abort_upload(handle)
        assert list(store.blobs()) == [first]
        assert store.read(first.digest, 1000) == data

    def test_what_is_not_there(self, store: BlobStore) -> None:
        absent = Digest.of(b"absent")
        assert store.stat(absent) is None
        for read in (
            lambda: list(store.open(absent)),
            lambda: store.read(absent, 10),
            lambda: store.download_request(absent, LIFE_SECONDS),
        ):
            with pytest.raises(BlobNotFound, match=absent.hex):
                read()
        store.delete(absent)

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 0), (0, 1), (5, 10), (99, None), (100, None), (50, 1000), (0, None), (0, 100)],
    )
    def test_ranges(self, store: BlobStore, offset: int, length: int | None) -> None:
        data = some_bytes(100)
        digest = store.put(data).digest
        end = 100 if length is None else offset + length
        assert b"".join(store.open(digest, offset, length)) == data[offset:end]

    def test_impossible_ranges(self, store: BlobStore) -> None:
        digest = store.put(some_bytes(100)).digest
        for offset, length in ((-1, None), (101, None), (0, -1)):
            with pytest.raises(InvalidContent):
                list(store.open(digest, offset, length))

    def test_chunks_are_bounded(self, store: BlobStore) -> None:
        digest = store.put(some_bytes(3 << 20)).digest
        assert max(len(chunk) for chunk in store.open(digest)) <= 1 << 20

    def test_read_refuses_what_is_too_large(self, store: BlobStore) -> None:
        digest = store.put(some_bytes(100)).digest
        with pytest.raises(BlobTooLarge, match="100 bytes"):
            store.read(digest, 99)

    def test_delete(self, store: BlobStore) -> None:
        data = some_bytes(100)
        digest = store.put(data).digest
        store.delete(digest)
        assert store.stat(digest) is None
        assert list(store.blobs()) == []
        store.put(data)
        assert store.read(digest, 100) == data

    @pytest.mark.parametrize("size", [0, 1, 8 << 20, TWO_PARTS_BYTES])
    def test_upload(self, store: BlobStore, size: int) -> None:
        data = some_bytes(size)
        digest = Digest.of(data)
        handle = store.begin_upload(size)
        for number in reversed(range(1, part_plan(size).count + 1)):
            assert store.stat(digest) is None
            send_parts(store, handle, data, number)
        assert store.stat(digest) is None
        assert sum(part.size_bytes for part in store.received_parts(handle)) == size
        stat = store.finish_upload(handle, digest, size)
        assert (stat.digest, stat.size_bytes) == (digest, size)
        store.abort_upload(handle)
        assert b"".join(store.open(digest)) == data
        assert list(store.uploads()) == []

    def test_received_parts_let_an_upload_go_on(self, store: BlobStore) -> None:
        data = some_bytes(TWO_PARTS_BYTES)
        handle = store.begin_upload(len(data))
        assert store.received_parts(handle) == []
        send_parts(store, handle, data, 2)
        assert store.received_parts(handle) == [Part(2, 12_345)]
        with pytest.raises(SizeMismatch, match="1 of 2 parts"):
            store.finish_upload(handle, Digest.of(data), len(data))
        send_parts(store, handle, data, 1)
        assert store.received_parts(handle) == [Part(1, 8 << 20), Part(2, 12_345)]
        assert store.finish_upload(handle, Digest.of(data), len(data)).size_bytes == len(data)

    def test_a_part_may_be_sent_again(self, store: BlobStore) -> None:
        data = some_bytes(100)
        handle = upload(store, data)
        send_parts(store, handle, data)
        assert store.received_parts(handle) == [Part(1, 100)]
        store.finish_upload(handle, Digest.of(data), 100)
        assert store.read(Digest.of(data), 100) == data

    def test_other_bytes_than_named_never_become_visible(self, store: BlobStore) -> None:
        handle = upload(store, b"other")
        with pytest.raises(DigestMismatch, match="send it again"):
            store.finish_upload(handle, Digest.of(b"named"), 5)
        assert list(store.blobs()) == []
        assert list(store.uploads()) == []
        with pytest.raises(UploadNotFound):
            store.finish_upload(handle, Digest.of(b"other"), 5)

    def test_another_size_than_begun(self, store: BlobStore) -> None:
        handle = upload(store, b"bytes")
        with pytest.raises(SizeMismatch, match="5 bytes, not 6"):
            store.finish_upload(handle, Digest.of(b"bytes"), 6)
        assert store.finish_upload(handle, Digest.of(b"bytes"), 5).size_bytes == 5

    @pytest.mark.parametrize("sent", [b"", b"fiv", b"five!!"])
    def test_a_part_of_another_length_does_not_count(self, store: BlobStore, sent: bytes) -> None:
        handle = store.begin_upload(5)
        send(store.part_request(handle, 1, LIFE_SECONDS), sent)
        assert store.received_parts(handle) == []
        with pytest.raises(SizeMismatch):
            store.finish_upload(handle, Digest.of(sent), 5)
        send_parts(store, handle, b"five!")
        assert store.finish_upload(handle, Digest.of(b"five!"), 5).size_bytes == 5

    def test_what_is_visible_is_never_overwritten(self, store: BlobStore) -> None:
        data = some_bytes(TWO_PARTS_BYTES)
        handle = upload(store, data)
        request = store.part_request(handle, 2, LIFE_SECONDS)
        store.finish_upload(handle, Digest.of(data), len(data))
        send(request, some_bytes(12_345, seed=2))
        assert b"".join(store.open(Digest.of(data))) == data
        store.abort_upload(handle)
        send(request, some_bytes(12_345, seed=2))
        assert b"".join(store.open(Digest.of(data))) == data

    def test_finish_may_be_repeated(self, store: BlobStore) -> None:
        handle = upload(store, b"bytes")
        first = store.finish_upload(handle, Digest.of(b"bytes"), 5)
        assert store.finish_upload(handle, Digest.of(b"bytes"), 5) == first
        assert store.received_parts(handle) == [Part(1, 5)]

    def test_many_finish_the_same_blob_at_once(self, store: BlobStore) -> None:
        data = some_bytes(1 << 20)
        handles = [upload(store, data) for _ in range(4)]
        found: list[object] = []

        def finish(handle: str) -> None:
            try:
                found.append(store.finish_upload(handle, Digest.of(data), len(data)).digest)
            except Exception as error:  # the assertion below shows it
                found.append(error)

        threads = [threading.Thread(target=finish, args=(handle,)) for handle in handles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [Digest.of(data)] * 4
        assert len(list(store.blobs())) == 1
        assert store.read(Digest.of(data), len(data)) == data

    def test_abort(self, store: BlobStore) -> None:
        handle = store.begin_upload(5)
        assert [each.handle for each in store.uploads()] == [handle]
        request = store.part_request(handle, 1, LIFE_SECONDS)
        store.abort_upload(handle)
        store.abort_upload(handle)
        assert list(store.uploads()) == []
        send(request, b"bytes")
        for use in (
            lambda: store.received_parts(handle),
            lambda: store.finish_upload(handle, Digest.of(b"bytes"), 5),
        ):
            with pytest.raises(UploadNotFound, match="begin a new one"):
                use()

    @pytest.mark.parametrize("handle", ["", "0" * 32, "../../etc", "5-" + "0" * 32 + ".nothing"])
    def test_unknown_uploads(self, store: BlobStore, handle: str) -> None:
        for use in (
            lambda: store.received_parts(handle),
            lambda: store.finish_upload(handle, Digest.of(b""), 5),
        ):
            with pytest.raises((UploadNotFound, SizeMismatch)):
                use()

    def test_impossible_sizes_and_parts(self, store: BlobStore) -> None:
        for size in (-1, (5 << 40) + 1):
            with pytest.raises(InvalidContent, match="impossible"):
                store.begin_upload(size)
        handle = store.begin_upload(5)
        for number in (0, 2):
            with pytest.raises(InvalidContent, match="does not exist"):
                store.part_request(handle, number, LIFE_SECONDS)

    def test_download(self, store: BlobStore) -> None:
        data = some_bytes(3_000_000)
        digest = store.put(data).digest
        request = store.download_request(digest, LIFE_SECONDS, "application/vnd.boardwright.graph.v1+onnx")
        assert send(request) == (200, data)
        assert send(request, Range="bytes=1000-1999") == (206, data[1000:2000])
        assert send(request, Range="bytes=2999000-") == (206, data[2_999_000:])
        assert send(request, Range="bytes=3000000-")[0] == 416

    def test_download_of_nothing(self, store: BlobStore) -> None:
        assert send(store.download_request(store.put(b"").digest, LIFE_SECONDS)) == (200, b"")

    def test_forged_requests_are_refused(self, store: BlobStore) -> None:
        one, two = (store.download_request(store.put(data).digest, LIFE_SECONDS) for data in (b"one", b"two"))
        mixed = SignedRequest("GET", one.url.split("?")[0] + "?" + two.url.split("?")[1])
        assert send(mixed)[0] == 403
        assert send(SignedRequest("GET", one.url.split("?")[0]))[0] == 403
        handle = store.begin_upload(5)
        part = store.part_request(handle, 1, LIFE_SECONDS)
        assert (
            send(SignedRequest("PUT", part.url[:-1] + ("0" if part.url[-1] != "0" else "1")), b"bytes")[0]
            == 403
        )
        assert store.received_parts(handle) == []

    def test_expired_requests_are_refused(self, store: BlobStore) -> None:
        request = store.download_request(store.put(b"bytes").digest, 1)
        deadline = time.monotonic() + 20
        while (status := send(request)[0]) == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status == 403

    def test_sweep(self, store: BlobStore) -> None:
        kept = store.put(b"kept").digest
        finished = upload(store, b"finished")
        store.finish_upload(finished, Digest.of(b"finished"), 8)
        handle = upload(store, b"bytes")
        assert store.sweep(0) == 0
        assert len(store.received_parts(handle)) == 1
        assert store.sweep(later_us()) >= 1
        assert list(store.uploads()) == []
        with pytest.raises(UploadNotFound):
            store.received_parts(handle)
        assert store.read(kept, 10) == b"kept"
        assert store.read(Digest.of(b"finished"), 10) == b"finished"
        assert store.sweep(later_us()) == 0
