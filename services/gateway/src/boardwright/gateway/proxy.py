"""The gRPC authority: one address for all services.

Messages pass as bytes, so that the gateway need not know them: metadata, deadline, cancellation, status and
error details go through unchanged in both directions. A service that is away is named in the error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

from boardwright.gateway.services import SERVICE_HEADER, Connections, service_of
from boardwright.rpc.errors import Unavailable, to_status

_DETAILS = "grpc-status-details-bin"
_LONGEST_SECONDS = 1e8
_Metadata = tuple[tuple[str, str | bytes], ...]


def streaming_methods(services: Iterable[Any]) -> frozenset[str]:
    """Paths of the methods that stream in either direction, from service descriptors."""
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for service in services
        for method in service.methods
        if method.client_streaming or method.server_streaming
    )


class Proxy(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Passes every call on to the service it belongs to.

    Args:
        connections: to the services.
        unary: paths of methods that take one message and answer with one. All others are passed on as
            streams, which also serves methods that are newer than this gateway.
    """

    def __init__(self, connections: Connections, unary: frozenset[str]) -> None:
        self._connections = connections
        self._unary_methods = unary
        self._handlers: dict[tuple[str, str], Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler for a call, or None (UNIMPLEMENTED) where no service has the method."""
        method = handler_call_details.method
        service = service_of(method, handler_call_details.invocation_metadata or ())
        if service is None:
            return None
        channel = self._connections.channel(service)
        if method in self._unary_methods:  # a bounded number, so that they may be kept
            handler = self._handlers.get((method, service))
            if handler is None:
                handler = grpc.unary_unary_rpc_method_handler(_unary_handler(channel, method, service))
                self._handlers[method, service] = handler
            return handler
        return grpc.stream_stream_rpc_method_handler(_stream_handler(self._connections, method, service))


def _unary_handler(channel: Any, method: str, service: str) -> Any:
    invoke = channel.unary_unary(method)

    async def pass_on(request: bytes, context: Any) -> bytes:
        call = invoke(
            request, metadata=_forwarded(context.invocation_metadata()), timeout=_remaining(context)
        )
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            await _refuse(context, error, service)
        await _send_metadata(context, call)
        context.set_trailing_metadata(_plain(await call.trailing_metadata()))
        return bytes(response)

    return pass_on


def _stream_handler(connections: Connections, method: str, service: str) -> Any:
    channel = connections.channel(service)

    async def pass_on(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        call = channel.stream_stream(method)(
            requests, metadata=_forwarded(context.invocation_metadata()), timeout=_remaining(context)
        )
        try:
            with connections.stream(call):
                await _send_metadata(context, call)
                async for response in call:
                    yield response
                context.set_trailing_metadata(_plain(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            await _refuse(context, error, service)
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message, _details(error))
        finally:
            call.cancel()  # does nothing to a call that has ended

    return pass_on


async def _send_metadata(context: Any, call: Any) -> None:
    initial = _plain(await call.initial_metadata())
    if initial:
        await context.send_initial_metadata(initial)


async def _refuse(context: Any, error: grpc.aio.AioRpcError, service: str) -> None:
    trailing = _plain(error.trailing_metadata())
    message = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE and not any(key == _DETAILS for key, _ in trailing):
        away = service_away(service)
        message, trailing = away.message, _details(away)
    await context.abort(error.code(), message, trailing)


def _details(error: Unavailable) -> _Metadata:
    return ((_DETAILS, to_status(error).SerializeToString()),)


def service_away(service: str) -> Unavailable:
    """The error for a service that cannot be reached."""
    return Unavailable(
        "SERVICE_UNAVAILABLE",
        f"the {service} service does not answer; try again soon (`boardwright status` shows its state)",
        service=service,
    )


def _forwarded(metadata: Any) -> _Metadata:
    """The caller's own metadata: what gRPC adds by itself is left out."""
    return tuple(
        (key, value)
        for key, value in metadata or ()
        if key not in ("user-agent", SERVICE_HEADER) and not key.startswith("grpc-")
    )


def _plain(metadata: Any) -> _Metadata:
    return tuple((key, value) for key, value in metadata or ())


def _remaining(context: Any) -> float | None:
    seconds = context.time_remaining()
    return None if seconds is None or seconds > _LONGEST_SECONDS else seconds
