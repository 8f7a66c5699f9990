"""Which API belongs to which service, and the connections to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grpc

from boardwright.rpc.errors import Unavailable
from boardwright.rpc.server_options import MESSAGE_OPTIONS

SERVICES = ("registry", "calibration", "compiler", "builder", "delivery")
SERVICE_HEADER = "x-boardwright-service"
"""Metadata that names the service a call is for, where the method alone does not tell (Leases)."""

_PREFIX = "boardwright.api."
_LEASE_SERVICES = ("compiler", "builder")
_OPTIONS = (
    *MESSAGE_OPTIONS,
    # A restarted service is found again at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 60_000),
)


def service_of(method: str, metadata: Iterable[tuple[str, Any]] = ()) -> str | None:
    """The service that a gRPC method path belongs to, or None where there is none.

    >>> service_of("/boardwright.api.registry.v1.Blobs/GetBlob")
    'registry'
    """
    api = method.lstrip("/").partition("/")[0]
    if not api.startswith(_PREFIX):
        return None
    owner = api[len(_PREFIX) :].partition(".")[0]
    if owner == "jobs":
        # Compiler and builder serve the same Leases API; the caller says which one is meant.
        named = next((value for key, value in metadata if key == SERVICE_HEADER), "")
        return named if named in _LEASE_SERVICES else None
    return owner if owner in SERVICES else None


class Connections:
    """One channel to each service; made in a running event loop, connected when first used."""

    def __init__(self, endpoints: Mapping[str, str]) -> None:
        self._streams: set[Any] = set()
        self._stopping = False
        self._channels = {
            service: grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
            for service, endpoint in endpoints.items()
        }

    def channel(self, service: str) -> Any:
        """The `grpc.aio.Channel` to one of `SERVICES`; its calls take and give bytes by default."""
        return self._channels[service]

    @contextlib.contextmanager
    def stream(self, call: Any) -> Iterator[None]:
        """Around what reads from a stream of a service: `end_streams` breaks it off.

        Raises: Unavailable SERVICE_STOPPING, when it was broken off.
        """
        self._streams.add(call)
        try:
            yield
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise Unavailable(
                "SERVICE_STOPPING", "the gateway is stopping; connect again and resume"
            ) from None
        finally:
            self._streams.discard(call)

    def end_streams(self) -> None:
        """End open streams, which would last for ever, so that watchers resume elsewhere."""
        self._stopping = True
        for call in list(self._streams):
            call.cancel()

    async def close(self) -> None:
        """Close all channels; calls that still run are cancelled."""
        for channel in self._channels.values():
            await channel.close(None)
