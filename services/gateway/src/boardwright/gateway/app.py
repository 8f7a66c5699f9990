"""The only place where the gateway's parts are wired together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import uvicorn

from boardwright.gateway.http import make_application
from boardwright.gateway.proxy import Proxy, streaming_methods
from boardwright.gateway.rest.api import service_descriptors
from boardwright.gateway.services import Connections
from boardwright.gateway.settings import Settings
from boardwright.rpc.server_options import SERVER_OPTIONS

_DRAIN_SECONDS = 4.0


class _HttpServer(uvicorn.Server):
    """uvicorn's server, without handling signals: the gateway stops both of its servers itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM or SIGINT (or until `stop` is set), then drain for at most 4 seconds.

    Raises:
        OSError: an address is taken.
    """
    stop = stop or _on_signals()
    listener = _bind(settings.http_listen)
    connections = Connections(settings.endpoints)
    authority, grpc_endpoint = _authority(settings, connections)
    http = _HttpServer(
        uvicorn.Config(
            make_application(settings, connections),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(_DRAIN_SECONDS),
        )
    )
    await authority.start()
    serving = asyncio.ensure_future(http.serve([listener]))
    waiting = asyncio.ensure_future(stop.wait())
    try:
        while not http.started and not serving.done():
            await asyncio.sleep(0.005)
        if not serving.done():
            host, port = listener.getsockname()[:2]
            _announce(settings.ready_file, f"{host}:{port}", grpc_endpoint)
        await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        http.should_exit = True
        connections.end_streams()
        await asyncio.gather(authority.stop(_DRAIN_SECONDS), serving)
        await connections.close()
        if settings.ready_file is not None:
            settings.ready_file.unlink(missing_ok=True)


def _authority(settings: Settings, connections: Connections) -> tuple[grpc.aio.Server, str]:
    descriptors = service_descriptors()
    streams = streaming_methods(descriptors)
    known = {f"/{s.full_name}/{m.name}" for s in descriptors for m in s.methods}
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((Proxy(connections, frozenset(known - streams)),))
    host = settings.grpc_listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(settings.grpc_listen)
    except RuntimeError as error:
        raise OSError(
            f"cannot listen on {settings.grpc_listen}; choose another BOARDWRIGHT_GATEWAY_GRPC_LISTEN"
        ) from error
    return server, f"{host}:{port}"


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once (TCP_NODELAY) only on sockets that say they are TCP's.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen on {address}: {error}; choose another BOARDWRIGHT_GATEWAY_LISTEN"
        ) from error
    listener.set_inheritable(True)
    return listener


def _on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _announce(ready_file: Path | None, http: str, grpc_endpoint: str) -> None:
    if ready_file is None:
        return
    partial = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
    partial.write_text(json.dumps({"endpoint": http, "grpc": grpc_endpoint, "pid": os.getpid()}))
    partial.replace(ready_file)
