"""The gRPC server that every service runs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from boardwright.rpc.auth import TokenFile
from boardwright.rpc.handling import Gate, Service
from boardwright.rpc.metrics_endpoint import start_metrics
from boardwright.rpc.server_options import SERVER_OPTIONS

__all__ = ["ServerSettings", "Service", "serve"]

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a service listens, and whom it trusts."""

    service: str
    listen: str
    tokens_file: Path
    grant_key: str = ""
    ready_file: Path | None = None
    metrics_listen: str = ""

    @classmethod
    def from_environment(cls, service: str) -> ServerSettings:
        """Read BOARDWRIGHT_<SERVICE>_LISTEN and _<SERVICE>_METRICS_LISTEN (no metrics endpoint without it),
        BOARDWRIGHT_TOKENS_FILE, _GRANT_KEY and _READY_FILE.

        Raises: ValueError that names the missing variable.
        """
        tokens = os.environ.get("BOARDWRIGHT_TOKENS_FILE", "")
        if not tokens:
            raise ValueError("BOARDWRIGHT_TOKENS_FILE is not set; it names the JSON file of hashed tokens")
        ready = os.environ.get("BOARDWRIGHT_READY_FILE", "")
        return cls(
            service,
            os.environ.get(f"BOARDWRIGHT_{service.upper()}_LISTEN") or "127.0.0.1:0",
            Path(tokens),
            os.environ.get("BOARDWRIGHT_GRANT_KEY", ""),
            Path(ready) if ready else None,
            os.environ.get(f"BOARDWRIGHT_{service.upper()}_METRICS_LISTEN", ""),
        )


async def serve(
    services: Sequence[Service],
    settings: ServerSettings,
    *,
    on_ready: Callable[[str], None] | None = None,
    background: Sequence[Callable[[], Awaitable[None]]] = (),
) -> None:
    """Serve until SIGTERM or SIGINT, then drain for at most 4 seconds.

    `on_ready` gets the endpoint "host:port" once requests are answered; the ready file is written then too.
    `background` coroutines run beside the server; one that fails ends the service.

    Raises: OSError when the address is taken; LookupError for a method without a permission; what a
    background coroutine raised.
    """
    gate = Gate(TokenFile(settings.tokens_file), settings.grant_key)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    for service in services:
        gate.register(service, server)
    health = _add_health(server)
    endpoint = _bind(server, settings)
    await server.start()
    metrics = await start_metrics(settings.metrics_listen) if settings.metrics_listen else None
    stop = _on_signals()
    tasks = [asyncio.ensure_future(run()) for run in background]
    _announce(settings, endpoint, on_ready)
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        await health.enter_graceful_shutdown()
        gate.end_streams()
        if metrics is not None:
            metrics.close()
        for task in tasks:
            task.cancel()
        await server.stop(_DRAIN_SECONDS)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if settings.ready_file is not None:
            settings.ready_file.unlink(missing_ok=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _add_health(server: grpc.aio.Server) -> Any:
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    servicer: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer._server_status[""] = health_pb2.HealthCheckResponse.SERVING
    return servicer


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> str:
    host, _, _ = settings.listen.rpartition(":")
    try:
        bound = server.add_insecure_port(settings.listen)
    except RuntimeError as error:
        bound = 0
        cause: Exception | None = error
    else:
        cause = None
    if bound == 0:
        raise OSError(
            f"cannot listen on {settings.listen}; "
            f"choose another BOARDWRIGHT_{settings.service.upper()}_LISTEN"
        ) from cause
    _log.info("listening", extra={"endpoint": f"{host}:{bound}"})
    return f"{host}:{bound}"


def _on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _announce(settings: ServerSettings, endpoint: str, on_ready: Callable[[str], None] | None) -> None:
    if settings.ready_file is not None:
        partial = settings.ready_file.with_name(f".{settings.ready_file.name}.{os.getpid()}")
        partial.write_text(json.dumps({"endpoint": endpoint, "pid": os.getpid()}))
        partial.replace(settings.ready_file)
    if on_ready is not None:
        on_ready(endpoint)
