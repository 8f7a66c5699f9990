"""Channels to the services: token, trace, deadline, retries and message limits in one place.

`connect` and `connect_sync` give channels that the generated stubs use as they are. Every unary call gets a
deadline; calls that met UNAVAILABLE are repeated with backoff, which is safe because a create without a
`request_id` is given one here.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from boardwright.rpc.server_options import MESSAGE_OPTIONS
from boardwright.telemetry import tracing

DEADLINE_SECONDS = 30.0
_RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1.5s",
    "backoffMultiplier": 2.5,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_OPTIONS: list[tuple[str, Any]] = [
    *MESSAGE_OPTIONS,
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}]})),
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]

Metadata = Sequence[tuple[str, str | bytes]]


def connect(
    endpoint: str, *, token: str, principal: str | None = None, deadline_seconds: float = DEADLINE_SECONDS
) -> grpc.aio.Channel:
    """An asyncio channel to "host:port" (or "https://host:port" for TLS with the system's roots).

    `principal` is forwarded as the one on whose behalf a service calls. Nothing is sent before a call.
    """
    address, secure = _address(endpoint)
    inner = (
        grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(), options=_OPTIONS)
        if secure
        else grpc.aio.insecure_channel(address, options=_OPTIONS)
    )
    return _AsyncChannel(inner, _base_metadata(token, principal), deadline_seconds)


def connect_sync(
    endpoint: str, *, token: str, principal: str | None = None, deadline_seconds: float = DEADLINE_SECONDS
) -> grpc.Channel:
    """The same for synchronous callers."""
    address, secure = _address(endpoint)
    inner = (
        grpc.secure_channel(address, grpc.ssl_channel_credentials(), options=_OPTIONS)
        if secure
        else grpc.insecure_channel(address, options=_OPTIONS)
    )
    return _SyncChannel(inner, _base_metadata(token, principal), deadline_seconds)


def _address(endpoint: str) -> tuple[str, bool]:
    if endpoint.startswith("https://"):
        return endpoint.removeprefix("https://").rstrip("/"), True
    return endpoint.removeprefix("http://").rstrip("/"), False


def _base_metadata(token: str, principal: str | None) -> tuple[tuple[str, str], ...]:
    pairs = [("authorization", f"Bearer {token}")] if token else []
    if principal:
        pairs.append(("x-boardwright-principal", principal))
    return tuple(pairs)


class _Caller:
    """Wraps gRPC's multicallables with what every call carries."""

    def __init__(self, base: tuple[tuple[str, str], ...], deadline_seconds: float) -> None:
        self._base = base
        self._deadline = deadline_seconds

    def metadata(self, extra: Metadata | None) -> list[tuple[str, str | bytes]]:
        return [*self._base, ("traceparent", tracing.current_traceparent()), *(extra or ())]

    def wrap(self, call: Callable[..., Any], *, deadline: bool) -> Callable[..., Any]:
        default = self._deadline if deadline else None

        def run(
            request: Any, timeout: float | None = None, metadata: Metadata | None = None, **options: Any
        ) -> Any:
            if getattr(request, "request_id", None) == "":
                request.request_id = secrets.token_hex(16)
            return call(
                request,
                timeout=default if timeout is None else timeout,
                metadata=self.metadata(metadata),
                **options,
            )

        return run


class _Multicallable:
    """A wrapped multicallable: called directly, or through `with_call` and `future` (synchronous stubs)."""

    def __init__(self, inner: Any, caller: _Caller, *, deadline: bool) -> None:
        self._inner, self._caller, self._deadline = inner, caller, deadline
        self._call = caller.wrap(inner, deadline=deadline)

    def __call__(self, request: Any, *args: Any, **options: Any) -> Any:
        return self._call(request, *args, **options)

    def with_call(self, request: Any, *args: Any, **options: Any) -> Any:
        return self._caller.wrap(self._inner.with_call, deadline=self._deadline)(request, *args, **options)

    def future(self, request: Any, *args: Any, **options: Any) -> Any:
        return self._caller.wrap(self._inner.future, deadline=self._deadline)(request, *args, **options)


class _CarryingCalls:
    """The calls of a channel, each with token, trace and deadline."""

    def __init__(self, inner: Any, base: tuple[tuple[str, str], ...], deadline: float) -> None:
        self._inner = inner
        self._caller = _Caller(base, deadline)

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return _Multicallable(self._inner.unary_unary(method, *args, **options), self._caller, deadline=True)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return _Multicallable(
            self._inner.unary_stream(method, *args, **options), self._caller, deadline=False
        )

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return _Multicallable(
            self._inner.stream_unary(method, *args, **options), self._caller, deadline=False
        )

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return _Multicallable(
            self._inner.stream_stream(method, *args, **options), self._caller, deadline=False
        )


class _AsyncChannel(_CarryingCalls, grpc.aio.Channel):
    """A `grpc.aio.Channel` whose calls carry token, trace and deadline."""

    _inner: grpc.aio.Channel

    async def __aenter__(self) -> _AsyncChannel:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()


class _SyncChannel(_CarryingCalls, grpc.Channel):
    """A `grpc.Channel` whose calls carry token, trace and deadline."""

    def subscribe(self, callback: Callable[..., Any], try_to_connect: bool = False) -> None:
        self._inner.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[..., Any]) -> None:
        self._inner.unsubscribe(callback)

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> _SyncChannel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
