"""Parts are hashed while later ones are on their way, and what is whole never changes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from boardwright.content import Digest, DigestMismatch
from boardwright.content import arrivals as arrivals_module
from boardwright.content import directory as directory_module
from boardwright.content.arrivals import hashed_on_arrival
from boardwright.content.directory import DirectoryStore
from boardwright.testing.blob_store import some_bytes

PART = 8 << 20
DATA = some_bytes(2 * PART + 12_345)
DIGEST = Digest.of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def write(store: DirectoryStore, handle: str, number: int, data: bytes) -> None:
    writer = store.write_part(handle, number)
    writer.write(data[(number - 1) * PART : number * PART])
    writer.finish()
    writer.close()


def arrived(tmp_path: Path, handle: str) -> Digest | None:
    return hashed_on_arrival(tmp_path / "staging" / handle)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_finishing_reads_nothing_again(
    store: DirectoryStore, tmp_path: Path, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = store.begin_upload(len(DATA))
    for number in order:
        assert arrived(tmp_path, handle) is None
        write(store, handle, number, DATA)
    assert arrived(tmp_path, handle) == DIGEST
    monkeypatch.delattr(directory_module, "digest_file")
    assert store.finish_upload(handle, DIGEST, len(DATA)).size_bytes == len(DATA)
    assert store.read(DIGEST, len(DATA)) == DATA


def test_another_process_takes_over(store: DirectoryStore, tmp_path: Path) -> None:
    handle = store.begin_upload(len(DATA))
    write(store, handle, 1, DATA)
    other = DirectoryStore(tmp_path)
    write(other, handle, 2, DATA)
    write(store, handle, 3, DATA)
    assert arrived(tmp_path, handle) == DIGEST
    assert store.finish_upload(handle, DIGEST, len(DATA)).digest == DIGEST


@pytest.mark.parametrize("limit", ["_PARTS_AT_ONCE", "_MOST_UPLOADS"])
def test_what_nobody_hashed_is_hashed_in_the_end(
    store: DirectoryStore, tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals_module, limit, 1)
    handles = [store.begin_upload(len(DATA)) for _ in range(2)]
    for number in (3, 2, 1):
        for handle in handles:
            write(store, handle, number, DATA)
    # One part at a time never catches up with the two before it; one upload at a time forgets the other.
    assert limit != "_PARTS_AT_ONCE" or arrived(tmp_path, handles[0]) is None
    for handle in handles:
        assert store.finish_upload(handle, DIGEST, len(DATA)).digest == DIGEST


def test_a_torn_digest_does_not_count(store: DirectoryStore, tmp_path: Path) -> None:
    handle = store.begin_upload(len(DATA))
    for number in (1, 2, 3):
        write(store, handle, number, DATA)
    (tmp_path / "staging" / handle / "digest").write_bytes(bytes(64))
    assert arrived(tmp_path, handle) is None
    assert store.finish_upload(handle, DIGEST, len(DATA)).digest == DIGEST


def test_other_bytes_than_named_never_become_visible(store: DirectoryStore) -> None:
    handle = store.begin_upload(len(DATA))
    for number in (1, 2, 3):
        write(store, handle, number, DATA)
    with pytest.raises(DigestMismatch, match="send it again"):
        store.finish_upload(handle, Digest.of(b"named"), len(DATA))
    assert list(store.blobs()) == [] and list(store.uploads()) == []


def test_a_whole_part_takes_no_other_bytes(store: DirectoryStore) -> None:
    """Sent again, and by one who began before the part was whole."""
    other = some_bytes(len(DATA), seed=2)
    handle = store.begin_upload(len(DATA))
    late = store.write_part(handle, 1)
    write(store, handle, 1, DATA)
    late.write(other[:PART])
    late.finish()
    late.close()
    write(store, handle, 1, other)
    write(store, handle, 2, DATA)
    write(store, handle, 3, DATA)
    write(store, handle, 2, other)
    assert store.finish_upload(handle, DIGEST, len(DATA)).digest == DIGEST
    assert store.read(DIGEST, len(DATA)) == DATA


def test_writers_who_fight_for_a_part(store: DirectoryStore, tmp_path: Path) -> None:
    """What was hashed on arrival is what lies there, whoever of them won."""
    rivals = [DATA, some_bytes(len(DATA), seed=2), some_bytes(len(DATA), seed=3)]
    handle = store.begin_upload(len(DATA))

    def push(data: bytes) -> None:
        for number in (1, 2, 3):
            writer = store.write_part(handle, number)
            part = data[(number - 1) * PART : number * PART]
            for at in range(0, len(part), 1 << 18):
                writer.write(part[at : at + (1 << 18)])
            writer.finish()
            writer.close()

    threads = [threading.Thread(target=push, args=(data,)) for data in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lying = (tmp_path / "staging" / handle / "data").read_bytes()
    assert arrived(tmp_path, handle) == Digest.of(lying)


def test_the_digest_comes_after_the_bytes_are_on_the_disk(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could outlive them, when the power fails."""
    handle = store.begin_upload(len(DATA))
    synced: list[bool] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        sync(descriptor)
        synced.append(arrived(tmp_path, handle) is None)

    for number in (1, 2):
        write(store, handle, number, DATA)
    monkeypatch.setattr(os, "fsync", watch)
    write(store, handle, 3, DATA)
    assert synced == [True] and arrived(tmp_path, handle) == DIGEST
