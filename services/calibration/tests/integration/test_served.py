"""The service as a process, beside a real registry: what a client does, from a folder to a sealed dataset."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from boardwright.api.calibration.v1 import calibration_pb2 as pb
from boardwright.api.calibration.v1 import calibration_pb2_grpc as pb_grpc
from boardwright.api.registry.v1 import blobs_pb2_grpc
from boardwright.calibration.settings import MIGRATIONS, SCHEMA
from boardwright.content import Digest
from boardwright.content.directory import DirectoryStore
from boardwright.content.directory_app import DirectoryApp
from boardwright.content.directory_endpoint import DirectoryEndpoint
from boardwright.content.transfer import BlobTransfer
from boardwright.rpc.client import connect_sync
from boardwright.rpc.errors import BoardwrightError, from_rpc_error
from boardwright.samples import (
    DatasetManifest,
    DatasetReader,
    FoundSample,
    PackedSample,
    read_layout,
    write_packs,
)
from boardwright.testing.asgi_server import listening_socket, serve_asgi
from boardwright.testing.database import database_url_fixture, fresh_database_url
from boardwright.testing.services import RunningService, running_service

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
REGISTRY_MIGRATIONS = "boardwright.registry:storage/migrations"
SIGNING_KEY = b"test-signing-key"
DATASET = "projects/default/datasets/cats"
Picture = Callable[..., bytes]

database_url = database_url_fixture(SCHEMA, MIGRATIONS)


@dataclass
class Held:
    """Downloads of packs that wait until the test lets them go on."""

    asked: threading.Event = field(default_factory=threading.Event)
    going_on: threading.Event = field(default_factory=threading.Event)

    async def wait(self) -> None:
        self.asked.set()
        await asyncio.to_thread(self.going_on.wait)


@dataclass
class Client:
    """What the SDK does, in short."""

    service: RunningService
    registry: RunningService
    folder: Path
    held: Held

    def stub(self, role: str = "developer") -> Any:
        return pb_grpc.CalibrationStub(connect_sync(self.service.endpoint, token=self.service.tokens[role]))

    def transfer(self) -> BlobTransfer:
        channel = connect_sync(self.registry.endpoint, token=self.registry.tokens["developer"])
        return BlobTransfer(blobs_pb2_grpc.BlobsStub(channel))

    def push(self, version: str, source: Any) -> int:
        stub, transfer, count = self.stub(), self.transfer(), 0
        found = (sample for sample in source if isinstance(sample, FoundSample))
        for pack in write_packs(found, self.folder / "packs"):
            if pack.path is not None:
                assert transfer.upload("default", pack.path).digest == pack.digest
            messages = [to_message(sample) for sample in pack.samples]
            for start in range(0, len(messages), 500):
                request = pb.AddSamplesRequest(parent=version, samples=messages[start : start + 500])
                count = stub.AddSamples(request).sample_count
        return count

    def seal(
        self, version: str, skip_invalid: bool = False, left_out: Sequence[pb.Invalid] = ()
    ) -> pb.DatasetVersion:
        request = pb.SealDatasetVersionRequest(name=version, skip_invalid=skip_invalid, left_out=left_out)
        return list(self.stub().SealDatasetVersion(request))[-1].version

    def reader(self, version: pb.DatasetVersion) -> DatasetReader:
        transfer, place = self.transfer(), self.folder / "fetched"
        place.mkdir(exist_ok=True)

        def fetch(digest: str) -> Path:
            path = place / digest.removeprefix("sha256:")
            transfer.download("default", Digest.parse(digest), path)
            return path

        return DatasetReader(DatasetManifest.from_bytes(fetch(version.manifest_digest).read_bytes()), fetch)


def to_message(sample: PackedSample) -> pb.Sample:
    message = pb.Sample(
        name=sample.name,
        digest=sample.digest,
        size_bytes=sample.size_bytes,
        media_type=sample.media_type,
        pack_digest=sample.pack_digest,
        pack_offset=sample.pack_offset,
    )
    if isinstance(sample.label, int):
        message.label.class_id = sample.label
    elif sample.label is not None:
        message.label.boxes.SetInParent()
        for box in sample.label:
            message.label.boxes.boxes.add(
                class_id=box.class_id,
                center_x=box.center_x,
                center_y=box.center_y,
                width=box.width,
                height=box.height,
            )
    return message


@pytest.fixture
def client(database_url: str, tmp_path: Path) -> Iterator[Client]:
    with listening_socket() as (listener, url):
        store = DirectoryStore(tmp_path / "blobs", signing_key=SIGNING_KEY, public_url=url)
        settings = {"BOARDWRIGHT_GATEWAY_URL": url, "BOARDWRIGHT_BLOBS_URL": f"file://{tmp_path / 'blobs'}"}
        directory = DirectoryApp(DirectoryEndpoint(store, SIGNING_KEY))

        held = Held()
        held.going_on.set()

        async def mounted(scope: Any, receive: Any, send: Any) -> None:  # as the gateway mounts it
            if scope["method"] == "GET":
                await held.wait()
            await directory(scope | {"root_path": "/transfer"}, receive, send)

        with (
            serve_asgi(mounted, listener),
            fresh_database_url("sqlite", "registry", REGISTRY_MIGRATIONS, tmp_path) as registry_url,
            running_service(
                "registry",
                settings | {"BOARDWRIGHT_DATABASE_URL": registry_url},
                folder=tmp_path / "registry",
            ) as registry,
            running_service(
                "calibration",
                {
                    "BOARDWRIGHT_DATABASE_URL": database_url,
                    "BOARDWRIGHT_REGISTRY_ENDPOINT": registry.endpoint,
                },
                folder=tmp_path / "calibration",
            ) as service,
        ):
            yield Client(service, registry, tmp_path, held)


def opened(stub: Any, classes: list[str], task: str = "classification") -> str:
    stub.CreateDataset(
        pb.CreateDatasetRequest(parent="projects/default", dataset_id="cats", dataset=pb.Dataset(task=task))
    )
    return str(
        stub.CreateDatasetVersion(pb.CreateDatasetVersionRequest(parent=DATASET, classes=classes)).name
    )


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises((grpc.RpcError, BoardwrightError)) as caught:
        call()
    error = caught.value
    return (error if isinstance(error, BoardwrightError) else from_rpc_error(error)).reason


def test_from_a_folder_to_a_sealed_dataset_and_back(client: Client, picture: Picture, tmp_path: Path) -> None:
    root = tmp_path / "images"
    for number in range(12):
        path = root / ("cat" if number % 2 else "dog") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture((number, 0, 0)))
    source = read_layout(root)
    stub = client.stub()
    version = opened(stub, list(source.classes))
    assert client.push(version, source) == 12 == client.push(version, source)
    steps = list(stub.SealDatasetVersion(pb.SealDatasetVersionRequest(name=version)))
    assert (steps[0].done, steps[0].total) == (0, 12) and steps[
        -1
    ].version.state == pb.DatasetVersion.STATE_SEALED
    sealed = stub.GetDatasetVersion(pb.GetDatasetVersionRequest(name=f"{DATASET}/versions/latest"))
    assert sealed == steps[-1].version
    assert dict(sealed.statistics.class_counts) == {0: 6, 1: 6} and sealed.statistics.width.mean == 6
    read = {sample.name: sample.label for sample in client.reader(sealed)}
    assert read == {sample.name: sample.label for sample in source if isinstance(sample, FoundSample)}
    events = (
        client.stub("releaser").ListAuditEvents(pb.ListAuditEventsRequest(parent="projects/default")).events
    )
    assert [event.method for event in events] == [
        "SealDatasetVersion",
        "AddSamples",
        "CreateDatasetVersion",
        "CreateDataset",
    ]
    assert {event.actor for event in events} == {"developer"}


def test_errors_have_their_reasons(client: Client, picture: Picture, tmp_path: Path) -> None:
    stub = client.stub()
    version = opened(stub, ["cat"])
    assert reason_of(lambda: client.seal(version)) == "DATASET_EMPTY"
    good, bad = picture(), b"this is no image"
    found = [FoundSample("a.png", good, "image/png", 0), FoundSample("b.png", bad, "image/png", 0)]
    client.push(version, found)
    assert reason_of(lambda: client.seal(version)) == "SAMPLES_CORRUPT"
    before = pb.Invalid(sample="c.png", reason="labels.csv:7: no class")
    for far_too_much in ([before] * 101, [pb.Invalid(sample="c" * 1025)]):
        assert (
            reason_of(lambda left_out=far_too_much: client.seal(version, True, left_out)) == "FIELD_INVALID"
        )  # type: ignore[misc]
    sealed = client.seal(version, skip_invalid=True, left_out=[before])
    assert [entry.sample for entry in sealed.left_out] == ["c.png", "b.png"] and sealed.sample_count == 1
    assert sealed.left_out[0] == before
    assert reason_of(lambda: client.push(version, found)) == "VERSION_SEALED"
    create = pb.CreateDatasetRequest(parent="projects/default", dataset_id="dogs")
    assert reason_of(lambda: client.stub("viewer").CreateDataset(create)) == "PERMISSION_MISSING"
    for name, reason in [
        ("datasets/x", "FIELD_INVALID"),
        ("projects/default/datasets/x", "DATASET_NOT_FOUND"),
    ]:
        assert reason_of(lambda name=name: stub.GetDataset(pb.GetDatasetRequest(name=name))) == reason  # type: ignore[misc]
    assert reason_of(lambda: client.seal(f"{DATASET}/versions/7")) == "DATASET_VERSION_NOT_FOUND"


def test_a_killed_service_goes_on_where_it_was(client: Client, picture: Picture) -> None:
    stub = client.stub()
    version = opened(stub, ["cat"])
    found = [FoundSample(f"{n:04d}.png", picture((n % 256, n // 256, 0)), "image/png", 0) for n in range(600)]
    client.push(version, found)
    stream = stub.SealDatasetVersion(pb.SealDatasetVersionRequest(name=version))
    for step in stream:
        if step.done >= 256:
            break
    client.service.kill()
    with pytest.raises(grpc.RpcError):
        list(stream)
    client.service.start()
    again = client.stub()
    steps = list(again.SealDatasetVersion(pb.SealDatasetVersionRequest(name=version)))
    assert 256 <= steps[0].done < 600
    assert steps[-1].version.statistics.count == 600


def test_the_service_stops_cleanly_in_the_middle_of_a_seal(client: Client, picture: Picture) -> None:
    stub, process = client.stub(), client.service.process
    version = opened(stub, ["cat"])
    found = [FoundSample(f"{n:04d}.png", picture((n, 0, 0)), "image/png", 0) for n in range(20)]
    client.push(version, found)
    client.held.asked.clear()
    client.held.going_on.clear()
    stream = stub.SealDatasetVersion(pb.SealDatasetVersionRequest(name=version))
    assert next(stream).done == 0
    assert client.held.asked.wait(120)
    assert process is not None
    process.terminate()
    assert reason_of(lambda: list(stream)) in ("SERVICE_STOPPING", "SERVICE_UNAVAILABLE")
    client.held.going_on.set()
    assert process.wait(120) == 0
    assert "Traceback" not in client.service.log.read_text()
    for line in client.service.log.read_text().splitlines():
        json.loads(line)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data (real models and images) is absent")
def test_real_images_in_yolo_layout(client: Client) -> None:
    source = read_layout(DATA / "coco", split="val2017")
    version = opened(client.stub(), list(source.classes), "detection")
    assert client.push(version, source) == 128
    sealed = client.seal(version)
    assert sealed.statistics.count == sealed.labelled_count == 128
    assert sum(sealed.statistics.class_counts.values()) == 898
    assert 0.3 < sealed.statistics.brightness.mean < 0.6 and sealed.statistics.width.max == 640
    assert len(sealed.statistics.channels) == 3
    assert sum(1 for _ in client.reader(sealed).samples(limit=10)) == 10
