"""The Blobs API on both databases, over a directory behind a real HTTP server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from boardwright.api.registry.v1 import blobs_pb2_grpc
from boardwright.content.directory import DirectoryStore
from boardwright.content.directory_app import DirectoryApp
from boardwright.content.directory_endpoint import DirectoryEndpoint
from boardwright.database import Database
from boardwright.registry.blobs_collector import BlobCollector
from boardwright.registry.blobs_service import BlobsService
from boardwright.registry.domain.blobs import BlobPolicy
from boardwright.registry.rpc.blobs_servicer import PERMISSIONS, BlobsServicer
from boardwright.registry.storage.blobs import SqlBlobRepository
from boardwright.rpc.auth import TokenFile
from boardwright.rpc.client import connect_sync
from boardwright.rpc.handling import Gate, Service
from boardwright.testing.asgi_server import listening_socket, serve_asgi
from boardwright.testing.database import database_fixture
from boardwright.testing.services import write_tokens

SIGNING_KEY = b"a key for tests only"
GRANT_KEY = "a grant key for tests only"

database = database_fixture("registry", "boardwright.registry:storage/migrations")


@dataclass
class Clock:
    """Seconds since the epoch, moved by hand."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    with listening_socket() as (listener, url):
        store = DirectoryStore(tmp_path / "store", signing_key=SIGNING_KEY, public_url=url)
        with serve_asgi(DirectoryApp(DirectoryEndpoint(store, SIGNING_KEY)), listener):
            yield store


@pytest.fixture
def policy() -> BlobPolicy:
    return BlobPolicy(largest_bytes=1 << 30, grace_seconds=1000)


@pytest.fixture
def repository(database: Database) -> SqlBlobRepository:
    return SqlBlobRepository(database)


@pytest.fixture
def service(
    repository: SqlBlobRepository, store: DirectoryStore, policy: BlobPolicy, clock: Clock
) -> BlobsService:
    return BlobsService(repository, store, policy, clock=clock)


@pytest.fixture
def collector(
    repository: SqlBlobRepository, store: DirectoryStore, policy: BlobPolicy, clock: Clock
) -> BlobCollector:
    return BlobCollector(repository, store, policy, clock=clock)


@dataclass
class BlobsServer:
    """A gRPC server with the Blobs API in a thread."""

    endpoint: str
    tokens: dict[str, str]
    channels: list[grpc.Channel] = field(default_factory=list)

    def stub(self, token: str) -> blobs_pb2_grpc.BlobsStub:
        channel = connect_sync(self.endpoint, token=self.tokens.get(token, token))
        self.channels.append(channel)
        return blobs_pb2_grpc.BlobsStub(channel)


async def _serve(
    servicer: BlobsServicer, gate: Gate, started: Callable[[int], None], stop: asyncio.Event
) -> None:
    server = grpc.aio.server()
    gate.register(Service(blobs_pb2_grpc.add_BlobsServicer_to_server, servicer, PERMISSIONS), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    started(port)
    await stop.wait()
    await server.stop(1)


@pytest.fixture
def server(service: BlobsService, collector: BlobCollector, tmp_path: Path) -> Iterator[BlobsServer]:
    tokens = write_tokens(tmp_path / "tokens.json")
    gate = Gate(TokenFile(tmp_path / "tokens.json"), GRANT_KEY)
    ready = threading.Event()
    ports: list[int] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await _serve(BlobsServicer(service, collector), gate, lambda p: (ports.append(p), ready.set()), stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(20)
    running = BlobsServer(f"127.0.0.1:{ports[0]}", tokens)
    yield running
    for channel in running.channels:
        channel.close()
    loop, stop = loops[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
