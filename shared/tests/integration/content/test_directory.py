"""What a directory store does when its disk is full, its folder is gone or its process is killed."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boardwright.content import (
    Digest,
    DigestMismatch,
    Part,
    StoreFull,
    StoreUnavailable,
    UploadNotFound,
)
from boardwright.content.directory import DirectoryStore
from boardwright.content.directory_endpoint import problem_of
from boardwright.testing.blob_store import TWO_PARTS_BYTES, later_us, send, send_parts, some_bytes, upload
from boardwright.testing.small_disk import mounted_memory

PART = 8 << 20


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """This process writes no larger file, as if its disk or quota were used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with mounted_memory(tmp_path / "disk", 24):
        yield tmp_path / "disk"


def test_a_full_quota(directory_store: DirectoryStore) -> None:
    store, data = directory_store, some_bytes(2_000_000)
    with files_of_at_most(1_000_000):
        with pytest.raises(StoreFull, match=r"no room left in the blob folder .*: free some, then retry"):
            store.put(data)
        with pytest.raises(StoreFull):
            store.begin_upload(2_000_000)
        store.put(some_bytes(1000))
    assert store.stat(Digest.of(data)) is None
    assert list(store.uploads()) == []
    assert store.put(data).size_bytes == len(data)
    assert store.sweep(later_us()) == 0  # the failed attempts left nothing


def test_a_full_disk(small_disk: Path) -> None:
    store = DirectoryStore(small_disk)
    kept = store.put(some_bytes(1_000_000))
    with pytest.raises(StoreFull, match="free more, then retry"):
        store.begin_upload(30 << 20)
    with pytest.raises(StoreFull):
        store.put(bytes(30 << 20))
    assert [stat.digest for stat in store.blobs()] == [kept.digest]
    # Two uploads that fit one by one: the second runs out of room in mid-part.
    data = some_bytes(2 * PART)
    handles = [store.begin_upload(len(data)) for _ in range(2)]
    writer = store.write_part(handles[0], 1)
    writer.write(data[:PART])
    writer.finish()
    writer.close()
    (small_disk / "ballast").write_bytes(bytes(10 << 20))
    writer = store.write_part(handles[1], 1)
    with pytest.raises(StoreFull) as full:
        writer.write(data[:PART])
    writer.close()
    assert (problem_of(full.value).status, problem_of(full.value).reason) == (507, "STORE_FULL")
    assert store.received_parts(handles[1]) == []
    assert b"".join(store.open(kept.digest)) == some_bytes(1_000_000)
    # Once there is room, both the rest of the first upload and the retry succeed.
    (small_disk / "ballast").unlink()
    store.abort_upload(handles[1])
    writer = store.write_part(handles[0], 2)
    writer.write(data[PART:])
    writer.finish()
    writer.close()
    assert store.finish_upload(handles[0], Digest.of(data), len(data)).size_bytes == len(data)


def test_a_full_disk_over_http(directory_store: DirectoryStore) -> None:
    data = some_bytes(TWO_PARTS_BYTES)
    handle = directory_store.begin_upload(len(data))
    send_parts(directory_store, handle, data, 2)
    with files_of_at_most(PART // 2):
        status, body = send(directory_store.part_request(handle, 1, 60), data[:PART])
    assert status == 507 and b"STORE_FULL" in body
    assert directory_store.received_parts(handle) == [Part(2, 12_345)]
    send_parts(directory_store, handle, data, 1)
    assert directory_store.finish_upload(handle, Digest.of(data), len(data)).size_bytes == len(data)


def test_a_folder_that_is_gone(directory_store: DirectoryStore, tmp_path: Path) -> None:
    store = directory_store
    digest = store.put(b"bytes").digest
    handle = upload(store, b"other")
    request = store.part_request(handle, 1, 60)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    for use in (
        lambda: store.stat(digest),
        lambda: list(store.open(digest)),
        lambda: store.delete(digest),
        lambda: store.put(b"more"),
        lambda: store.begin_upload(5),
        lambda: store.received_parts(handle),
        lambda: store.abort_upload(handle),
        lambda: list(store.blobs()),
    ):
        with pytest.raises(StoreUnavailable, match="then retry"):
            use()
    assert send(request, b"other")[0] == 503
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    assert store.read(digest, 5) == b"bytes"
    assert store.finish_upload(handle, Digest.of(b"other"), 5).size_bytes == 5


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        DirectoryStore(tmp_path / "file" / "store")


def test_a_damaged_blob_is_told(directory_store: DirectoryStore) -> None:
    digest = directory_store.put(some_bytes(100_000)).digest
    path = directory_store.path(digest)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(50_000)
        file.write(b"!!")
    with pytest.raises(DigestMismatch, match=r"restore .* from a backup"):
        directory_store.read(digest, 100_000)


def test_a_request_under_way_cannot_change_what_was_verified(directory_store: DirectoryStore) -> None:
    """A second writer of the same part, opened before the upload was finished, as a slow client would."""
    store, data = directory_store, some_bytes(1000)
    handle = store.begin_upload(1000)
    late = store.write_part(handle, 1)
    late.write(data[:10])
    send_parts(store, handle, data)
    store.finish_upload(handle, Digest.of(data), 1000)
    with pytest.raises(UploadNotFound, match="sealed"):
        late.write(b"!" * 990)
    late.close()
    assert store.read(Digest.of(data), 1000) == data
    with pytest.raises(UploadNotFound):
        store.write_part(handle, 1).write(b"!")
    assert not store.path(Digest.of(data)).stat().st_mode & 0o222


_PUSHER = """
import sys
from pathlib import Path
from boardwright.content import Digest
from boardwright.content.directory import DirectoryStore
from boardwright.testing.small_disk import mounted_memory
from boardwright.testing.blob_store import some_bytes
store, kind = DirectoryStore(Path(sys.argv[1])), sys.argv[2]
for number in range(10**6):
    data = some_bytes(200_000, seed=number)
    if kind == "put":
        stat = store.put(data)
    else:
        handle = store.begin_upload(len(data))
        writer = store.write_part(handle, 1)
        writer.write(data)
        writer.finish()
        writer.close()
        stat = store.finish_upload(handle, Digest.of(data), len(data))
        store.abort_upload(handle)
    print(stat.digest, flush=True)
"""


@pytest.mark.parametrize("kind", ["put", "upload"])
def test_killed_pushers_lose_nothing_and_leave_nothing_half_visible(tmp_path: Path, kind: str) -> None:
    store = DirectoryStore(tmp_path / "store")
    acknowledged: set[Digest] = set()
    for attempt in range(5):
        arguments = [sys.executable, "-c", _PUSHER, str(tmp_path / "store"), kind]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as pusher:
            assert pusher.stdout is not None
            for count, line in enumerate(pusher.stdout):
                acknowledged.add(Digest.parse(line.strip()))
                if count == 3 * attempt:
                    pusher.send_signal(signal.SIGKILL)
        assert pusher.returncode == -signal.SIGKILL
    visible = {stat.digest for stat in store.blobs()}
    assert acknowledged <= visible
    for digest in visible:
        assert len(store.read(digest, 200_000)) == 200_000
    store.sweep(later_us())
    assert os.listdir(tmp_path / "store" / "staging") == []
    assert {stat.digest for stat in store.blobs()} == visible


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    one, two = DirectoryStore(tmp_path / "store"), DirectoryStore(tmp_path / "store")
    digest = one.put(b"bytes").digest
    assert two.read(digest, 5) == b"bytes"
    two.delete(digest)
    assert one.stat(digest) is None
