"""A gateway on real ports, before services whose answers the tests choose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from boardwright.gateway.app import serve
from boardwright.gateway.services import SERVICES
from boardwright.gateway.settings import Settings

Handler = Callable[[Any, Any], Any]
SIGNING_KEY = b"a key for tests only"


@dataclass
class Service:
    """A gRPC server that answers all methods with what a test put into `unary` and `streams`."""

    unary: dict[str, Handler] = field(default_factory=dict)
    streams: dict[str, Handler] = field(default_factory=dict)
    endpoint: str = ""
    server: Any = None

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name in self.unary:
            return grpc.unary_unary_rpc_method_handler(self.unary[name])
        if name in self.streams:
            return grpc.unary_stream_rpc_method_handler(self.streams[name])
        return None

    async def start(self) -> None:
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self,))
        port = self.server.add_insecure_port(self.endpoint or "127.0.0.1:0")
        self.endpoint = f"127.0.0.1:{port}"
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(None)


@dataclass
class Running:
    """A gateway and the services behind it. `service` stands for all five of them."""

    service: Service
    grpc: str
    url: str
    http: httpx.AsyncClient
    blobs: Path
    stop: asyncio.Event


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    service = Service()
    await service.start()
    ready, stop = tmp_path / "ready.json", asyncio.Event()
    settings = Settings(
        http_listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        endpoints=dict.fromkeys(SERVICES, service.endpoint),
        service_token="gateway-token",
        blobs_url=f"file://{tmp_path / 'blobs'}",
        signing_key=SIGNING_KEY,
        ready_file=ready,
    )
    serving = asyncio.ensure_future(serve(settings, stop))
    await _until(ready.exists, serving)
    bound = json.loads(ready.read_text())
    url = f"http://{bound['endpoint']}"
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        yield Running(service, bound["grpc"], url, http, tmp_path / "blobs", stop)
    stop.set()
    await serving
    await service.stop()
    assert not ready.exists()


async def _until(condition: Callable[[], bool], serving: Awaitable[None]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            if isinstance(serving, asyncio.Future) and serving.done():
                serving.result()
            await asyncio.sleep(0.01)
