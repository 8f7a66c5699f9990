"""Documents too large for one answer are downloaded; what is registered already is found again."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from boardwright.api.registry.v1 import blobs_pb2, registry_pb2
from boardwright.builder.ports import NewMeasurement
from boardwright.builder.rpc.registry_client import MAX_DOCUMENT_BYTES, RegistryClient
from boardwright.model.pins import HardwarePin
from boardwright.rpc.errors import ResourceExhausted

DIGEST = "sha256:" + "a" * 64
RECORD = "sha256:" + "b" * 64


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    """Return a client whose calls the tests answer."""

    def download(project: str, digest: str, path: Path) -> None:
        path.write_bytes(f"{project} {digest}".encode())

    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        yield RegistryClient(channel, download)


def _answer(client: RegistryClient, stub: str, method: str, answer: Any) -> list[Any]:
    """Answer a method; returns the list that its requests will be in."""
    asked: list[Any] = []

    async def call(request: Any, metadata: Any) -> Any:
        asked.append((request, dict(metadata)))
        if isinstance(answer, Exception):
            raise answer
        return answer

    setattr(getattr(client, stub), method, call)
    return asked


async def test_small_documents_come_in_the_answer_on_behalf_of_the_actor(client: RegistryClient) -> None:
    asked = _answer(client, "_blobs", "ReadBlob", blobs_pb2.ReadBlobResponse(data=b"{}"))
    assert await client.read_document("alice", "default", DIGEST) == b"{}"
    assert asked[0][0].name == f"projects/default/blobs/{DIGEST}"
    assert asked[0][1] == {"x-boardwright-principal": "alice"}


async def test_larger_ones_are_downloaded(client: RegistryClient) -> None:
    _answer(client, "_blobs", "ReadBlob", ResourceExhausted("BLOB_TOO_LARGE", "too large"))
    _answer(client, "_blobs", "GetBlob", blobs_pb2.Blob(digest=DIGEST, size_bytes=2 << 20))
    assert await client.read_document("alice", "default", DIGEST) == f"default {DIGEST}".encode()


async def test_but_not_without_bound(client: RegistryClient) -> None:
    _answer(client, "_blobs", "ReadBlob", ResourceExhausted("BLOB_TOO_LARGE", "too large"))
    _answer(client, "_blobs", "GetBlob", blobs_pb2.Blob(digest=DIGEST, size_bytes=MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(ResourceExhausted, match="at most 64 MiB"):
        await client.read_document("alice", "default", DIGEST)


async def test_a_full_store_is_not_mistaken_for_a_large_document(client: RegistryClient) -> None:
    _answer(client, "_blobs", "ReadBlob", ResourceExhausted("STORE_FULL", "full"))
    with pytest.raises(ResourceExhausted, match="full"):
        await client.read_document("alice", "default", DIGEST)


def _figure(threads: int) -> NewMeasurement:
    host = HardwarePin(architecture="x86_64", board="x86-64")
    return NewMeasurement(
        "parent", "latency", {"p50_ms": 1.0}, "measured", "x86-64", host, threads, RECORD, {}
    )


async def test_a_figure_of_the_same_record_is_not_registered_twice(client: RegistryClient) -> None:
    known = registry_pb2.Measurement(name="m1", kind="latency", threads=1, record_digest=RECORD)
    listed = registry_pb2.ListMeasurementsResponse(measurements=[known])
    _answer(client, "_registry", "ListMeasurements", listed)
    created = _answer(client, "_registry", "CreateMeasurement", registry_pb2.Measurement(name="m2"))
    assert await client.create_measurement("alice", _figure(1), "r1") == "m1"
    assert created == []
    assert await client.create_measurement("alice", _figure(0), "r2") == "m2"
    assert created[0][0].measurement.values["p50_ms"] == 1.0 and created[0][0].request_id == "r2"
