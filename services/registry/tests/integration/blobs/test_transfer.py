from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boardwright.api.registry.v1 import blobs_pb2 as pb
from boardwright.content import BlobTooLarge, Digest, DigestMismatch, StoreFull, StoreUnavailable
from boardwright.content.directory import DirectoryStore
from boardwright.content.directory_endpoint import DirectoryEndpoint
from boardwright.content.download import partial_path
from boardwright.content.parts import PartWriter
from boardwright.content.transfer import BlobTransfer
from boardwright.rpc.errors import (
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    from_rpc_error,
)
from boardwright.testing.blob_store import some_bytes

PART = 8 << 20
FIVE_PARTS = 4 * PART + 1000


@pytest.fixture
def transfer(server):
    transfer = BlobTransfer(server.stub("developer"))
    yield transfer
    transfer.close()


@pytest.fixture
def parts_sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the parts that arrived whole."""
    sent: list[int] = []
    finish = PartWriter.finish

    def count(writer: PartWriter) -> None:
        finish(writer)
        sent.append(writer._number)

    monkeypatch.setattr(PartWriter, "finish", count)
    return sent


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    path.write_bytes(some_bytes(FIVE_PARTS))
    return path


def test_up_and_down(transfer: BlobTransfer, tmp_path: Path) -> None:
    for size in (0, 5, (1 << 20) + 1, PART + 5):
        data = some_bytes(size)
        for source in (data, tmp_path / "source"):
            (tmp_path / "source").write_bytes(data)
            told: list[tuple[int, int, str]] = []
            blob = transfer.upload(
                "default", source, what="checkpoint", progress=lambda *t, told=told: told.append(t)
            )
            assert (blob.digest, blob.size_bytes) == (str(Digest.of(data)), size)
            assert told[-1] == (size, size, "checkpoint")
            assert [t[0] for t in told] == sorted(t[0] for t in told)
        down = tmp_path / f"down-{size}"
        told = []
        transfer.download("default", Digest.of(data), down, progress=lambda *t, told=told: told.append(t))
        assert down.read_bytes() == data
        assert told[-1] == (size, size, "download")
        assert list(tmp_path.glob("*.part")) == []


def test_read(transfer: BlobTransfer) -> None:
    transfer.upload("default", b"small")
    assert transfer.read("default", Digest.of(b"small")) == b"small"
    with pytest.raises(NotFound):
        transfer.read("default", Digest.of(b"absent"))


def test_what_is_there_does_not_travel(
    transfer: BlobTransfer, big_file: Path, parts_sent: list[int], store: DirectoryStore
) -> None:
    transfer.upload("default", big_file)
    assert sorted(parts_sent) == [1, 2, 3, 4, 5]
    transfer.upload("default", big_file)
    assert len(parts_sent) == 5
    transfer.upload("other", big_file)
    assert len(parts_sent) == 10
    assert len(list(store.blobs())) == 1


_CLIENT = """
import sys
from pathlib import Path
from boardwright.api.registry.v1.blobs_pb2_grpc import BlobsStub
from boardwright.content import Digest
from boardwright.content.transfer import BlobTransfer
from boardwright.rpc.client import connect_sync
endpoint, token, verb, path, digest = sys.argv[1:]
transfer = BlobTransfer(BlobsStub(connect_sync(endpoint, token=token)), parallel=1)
def tell(done, total, what):
    print(done, flush=True)
    if done >= 0.6 * total:
        sys.stdin.read()  # until we are killed
if verb == "upload":
    transfer.upload("default", Path(path), progress=tell)
else:
    transfer.download("default", Digest.parse(digest), Path(path), progress=tell)
"""


def kill_at_60_percent(server, verb: str, path: Path, digest: Digest, total: int) -> None:
    """Run a client of its own and SIGKILL it once 60 % travelled."""
    arguments = [server.endpoint, server.tokens["developer"], verb, str(path), str(digest)]
    with subprocess.Popen(
        [sys.executable, "-c", _CLIENT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    ) as client:
        for line in client.stdout:
            if int(line) >= 0.6 * total:
                break
        client.send_signal(signal.SIGKILL)
    assert client.returncode == -signal.SIGKILL


def test_a_killed_upload_sends_only_the_rest(
    transfer: BlobTransfer, server, big_file: Path, parts_sent: list[int], store: DirectoryStore
) -> None:
    digest = Digest.of(big_file.read_bytes())
    kill_at_60_percent(server, "upload", big_file, digest, FIVE_PARTS)
    already = list(parts_sent)
    assert len(already) == 3
    assert store.stat(digest) is None
    told: list[int] = []
    transfer.upload("default", big_file, progress=lambda done, *_: told.append(done))
    assert told[0] == 3 * PART
    assert sorted(parts_sent) == [1, 2, 3, 4, 5]
    assert b"".join(store.open(digest)) == big_file.read_bytes()


def test_a_killed_download_fetches_only_the_rest(
    transfer: BlobTransfer, server, big_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer.upload("default", big_file)
    digest, down = Digest.of(big_file.read_bytes()), tmp_path / "down"
    kill_at_60_percent(server, "download", down, digest, FIVE_PARTS)
    here = partial_path(down, digest).stat().st_size
    assert 0.6 * FIVE_PARTS <= here < FIVE_PARTS
    assert not down.exists()
    ranges: list[str | None] = []
    serve = DirectoryEndpoint.download

    def spy(endpoint, method, path, query, range_header=None):
        ranges.append(range_header)
        return serve(endpoint, method, path, query, range_header)

    monkeypatch.setattr(DirectoryEndpoint, "download", spy)
    transfer.download("default", digest, down)
    assert ranges == [f"bytes={here}-"]
    assert down.read_bytes() == big_file.read_bytes()


@pytest.mark.parametrize("left", [b"not the beginning", bytes(FIVE_PARTS + 1)])
def test_a_wrong_beginning_is_thrown_away(
    transfer: BlobTransfer, big_file: Path, tmp_path: Path, left: bytes
) -> None:
    transfer.upload("default", big_file)
    digest, down = Digest.of(big_file.read_bytes()), tmp_path / "down"
    partial_path(down, digest).write_bytes(left)
    transfer.download("default", digest, down)
    assert down.read_bytes() == big_file.read_bytes()


def test_a_download_of_other_bytes_never_appears(
    transfer: BlobTransfer, big_file: Path, tmp_path: Path, store: DirectoryStore
) -> None:
    transfer.upload("default", big_file)
    digest, down = Digest.of(big_file.read_bytes()), tmp_path / "down"
    path = store.path(digest)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    with pytest.raises(DigestMismatch):
        transfer.download("default", digest, down)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("down")) == []


def test_a_download_is_bounded(transfer: BlobTransfer, tmp_path: Path) -> None:
    transfer.upload("default", b"12345")
    with pytest.raises(BlobTooLarge):
        transfer.download("default", Digest.of(b"12345"), tmp_path / "down", max_bytes=4)
    assert not (tmp_path / "down").exists()


def fail_parts(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
    write, left = PartWriter.write, [times]

    def failing(writer: PartWriter, data: bytes) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise error
        write(writer, data)

    monkeypatch.setattr(PartWriter, "write", failing)


def test_a_short_outage_of_the_store_is_bridged(
    transfer: BlobTransfer, big_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boardwright.content.transfer._WAITS_SECONDS", (0.01, 0.01))
    fail_parts(monkeypatch, StoreUnavailable("away"), 2)
    assert transfer.upload("default", big_file).size_bytes == FIVE_PARTS


def test_a_long_outage_is_told_and_a_retry_sends_the_rest(
    transfer: BlobTransfer, big_file: Path, parts_sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boardwright.content.transfer._WAITS_SECONDS", (0.01, 0.01))
    with monkeypatch.context() as patch:
        fail_parts(patch, StoreUnavailable("away"), 10**6)
        with pytest.raises(StoreUnavailable, match="away"):
            transfer.upload("default", big_file)
    transfer.upload("default", big_file)
    assert sorted(parts_sent) == [1, 2, 3, 4, 5]


def test_a_full_store_is_told_and_a_retry_sends_the_rest(
    transfer: BlobTransfer, big_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_parts(patch, StoreFull("no room left"), 10**6)
        with pytest.raises(StoreFull, match="no room left"):
            transfer.upload("default", big_file)
    assert transfer.upload("default", big_file).size_bytes == FIVE_PARTS


def test_a_file_that_changes_meanwhile(transfer: BlobTransfer, big_file: Path, store: DirectoryStore) -> None:
    def change(done: int, total: int, what: str) -> None:
        if done == 0:
            big_file.write_bytes(some_bytes(FIVE_PARTS, seed=2))

    with pytest.raises(DigestMismatch, match="changed"):
        transfer.upload("default", big_file, progress=change)
    assert list(store.blobs()) == []

    def cut(done: int, total: int, what: str) -> None:
        if done == 0:
            os.truncate(big_file, 100)

    with pytest.raises(DigestMismatch, match="shorter"):
        transfer.upload("default", big_file, progress=cut)


def test_who_may_what(server, tmp_path: Path) -> None:
    BlobTransfer(server.stub("developer")).upload("default", b"bytes")
    viewer = BlobTransfer(server.stub("viewer"))
    assert viewer.read("default", Digest.of(b"bytes")) == b"bytes"
    with pytest.raises(PermissionDenied) as denied:
        viewer.upload("default", b"other")
    assert denied.value.reason == "PERMISSION_MISSING"
    with pytest.raises(PermissionDenied):
        viewer.upload("default", bytes(2 << 20))
    with pytest.raises(Unauthenticated):
        BlobTransfer(server.stub("nobody's token")).read("default", Digest.of(b"bytes"))
    with pytest.raises(PermissionDenied) as ungranted:
        BlobTransfer(server.stub("worker")).read("default", Digest.of(b"bytes"))
    assert ungranted.value.reason == "DIGEST_NOT_GRANTED"


def test_messages(server) -> None:
    """What the gRPC surface adds: names, times, offsets, references, collection."""
    stub = server.stub("admin")
    digest = str(Digest.of(some_bytes(PART + 5)))
    upload = stub.StartUpload(
        pb.StartUploadRequest(parent="projects/default", digest=digest, size_bytes=PART + 5)
    )
    assert upload.state == pb.Upload.STATE_ACTIVE
    assert upload.part_size_bytes == PART
    assert [(p.number, p.offset, p.size_bytes, p.received) for p in upload.parts] == [
        (1, 0, PART, False),
        (2, PART, 5, False),
    ]
    assert all(p.request.method == "PUT" and p.request.expire_time.seconds for p in upload.parts)
    stub.CancelUpload(pb.CancelUploadRequest(name=upload.name))
    with pytest.raises(Exception) as over:
        stub.StartUpload(
            pb.StartUploadRequest(parent="projects/default", digest=digest, size_bytes=10 * 10**9)
        )
    error = from_rpc_error(over.value)
    assert isinstance(error, ResourceExhausted) and error.reason == "BLOB_TOO_LARGE"
    blob = stub.CreateBlob(pb.CreateBlobRequest(parent="projects/default", data=b"bytes"))
    assert blob.name == f"projects/default/blobs/{Digest.of(b'bytes')}"
    assert stub.GetBlob(pb.GetBlobRequest(name=blob.name)) == blob
    reference = pb.Reference(name="projects/default/references/test-one", digests=[blob.digest])
    assert stub.SetReference(pb.SetReferenceRequest(reference=reference)) == reference
    stub.DeleteReference(pb.DeleteReferenceRequest(name=reference.name))
    assert stub.CollectBlobs(pb.CollectBlobsRequest(validate_only=True)).blobs_deleted == 0
    for name in ("projects/default/blobs/5", "projects/default", "projects/Default/blobs/" + blob.digest):
        with pytest.raises(Exception) as malformed:
            stub.GetBlob(pb.GetBlobRequest(name=name))
        assert from_rpc_error(malformed.value).reason == "FIELD_INVALID"
