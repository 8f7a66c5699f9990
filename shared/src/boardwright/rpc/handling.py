"""What happens around every RPC: trace, caller, permission, turn, errors, metrics. One wrapper a method.

gRPC's own interceptors cost a coroutine and a handler look-up each per call; this wraps the generated
handlers once, when they are registered, and does everything in one function.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from boardwright.rpc.auth import (
    Permission,
    TokenFile,
    authenticate,
    check_request,
    current_principal,
    set_principal,
)
from boardwright.rpc.errors import BoardwrightError, Internal, Unavailable, to_status
from boardwright.rpc.tenancy import check_names
from boardwright.rpc.translation import translate
from boardwright.rpc.turns import Turns
from boardwright.telemetry import histogram, tracing

_log = logging.getLogger(__name__)
_latency = histogram(
    "boardwright_rpc_duration_seconds", "Duration of RPCs by method and status code.", ("method", "code")
)

Behavior = Callable[[Any, Any], Awaitable[Any]]
StreamBehavior = Callable[[Any, Any], AsyncGenerator[Any, None]]


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service to serve.

    `add` is the generated `add_…Servicer_to_server`; `permissions` has an entry for every method.
    """

    add: Callable[[Any, Any], None]
    implementation: object
    permissions: Mapping[str, Permission]


class Gate:
    """The wrapper around a server's handlers."""

    def __init__(self, tokens: TokenFile, grant_key: str) -> None:
        self._tokens = tokens
        self._grant_key = grant_key
        self._streams: set[asyncio.Task[Any]] = set()
        self._turns = Turns()
        self._stopping = False

    def end_streams(self) -> None:
        """End open streams with UNAVAILABLE, so that watchers resume elsewhere."""
        self._stopping = True
        for task in list(self._streams):
            task.cancel()

    def register(self, service: Service, server: grpc.aio.Server) -> None:
        """Register a service's wrapped handlers. Raises: LookupError for a method without a permission."""
        collected = _Collector()
        service.add(service.implementation, collected)
        for full_name, handlers in collected.services.items():
            missing = sorted(set(handlers) - set(service.permissions))
            if missing:
                raise LookupError(f"{full_name} has methods without a permission: {', '.join(missing)}")
            wrapped = {
                name: self._wrap(f"{full_name.rpartition('.')[2]}/{name}", handler, service.permissions[name])
                for name, handler in handlers.items()
            }
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(full_name, wrapped),))

    def _wrap(self, method: str, handler: Any, permission: Permission) -> Any:
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        behavior: Any
        if streams_out:
            behavior = self._streaming(method, handler.stream_stream or handler.unary_stream, permission)
            make = (
                grpc.stream_stream_rpc_method_handler if streams_in else grpc.unary_stream_rpc_method_handler
            )
        else:
            behavior = self._unary(method, handler.stream_unary or handler.unary_unary, permission)
            make = grpc.stream_unary_rpc_method_handler if streams_in else grpc.unary_unary_rpc_method_handler
        return make(behavior, handler.request_deserializer, handler.response_serializer)

    def _admit(self, request: Any, context: Any, permission: Permission) -> None:
        """Set the trace and the caller of this RPC's task.

        Raises: Unauthenticated; PermissionDenied; InvalidArgument for a resource of another project.
        """
        header = forwarded = traceparent = ""
        for key, value in context.invocation_metadata():
            if key == "authorization":
                header = value
            elif key == "x-boardwright-principal":
                forwarded = value
            elif key == "traceparent":
                traceparent = value
        tracing.attach(traceparent)
        if permission.public:
            return
        principal = authenticate(self._tokens, self._grant_key, header, forwarded)
        set_principal(principal)
        check_request(principal, permission, request)
        if permission.resource:
            check_names(request, permission.project(request))

    def _check_again(self, request: Any, context: Any, permission: Permission) -> None:
        """Check that a stream's caller may still have its next answer: its token may be revoked meanwhile.

        Raises: Unauthenticated; PermissionDenied.
        """
        metadata = dict(context.invocation_metadata())
        header, forwarded = (metadata.get(key, "") for key in ("authorization", "x-boardwright-principal"))
        check_request(authenticate(self._tokens, self._grant_key, header, forwarded), permission, request)

    def _unary(self, method: str, behavior: Behavior, permission: Permission) -> Behavior:
        admit, observe, clock = self._admit, _latency.observe, time.perf_counter
        take = self._turns.opened if permission.waits else self._turns.of

        async def run(request: Any, context: Any) -> Any:
            if not tracing.exporting():
                return await behavior(request, context)
            with tracing.span(method, **{"rpc.method": method}):
                return await behavior(request, context)

        async def handle(request: Any, context: Any) -> Any:
            start = clock()
            try:
                admit(request, context, permission)
                turn = take(current_principal())
                if turn is None:
                    answer = await run(request, context)
                else:
                    async with turn:
                        answer = await run(request, context)
            except Exception as error:
                known = _judge(method, error)
                observe(clock() - start, method, known.code)
                await _abort(context, known)
            else:
                observe(clock() - start, method, "OK")
                return answer

        return handle

    def _streaming(self, method: str, behavior: StreamBehavior, permission: Permission) -> StreamBehavior:
        async def handle(request: Any, context: Any) -> AsyncGenerator[Any, None]:
            task = asyncio.current_task()
            if task is not None:
                self._streams.add(task)
            try:
                self._admit(request, context, permission)
                opened = self._turns.opened(current_principal()) or contextlib.nullcontext()
                async with opened, contextlib.aclosing(behavior(request, context)) as answers:
                    async for answer in answers:
                        self._check_again(request, context, permission)
                        yield answer
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
                stopping = Unavailable(
                    "SERVICE_STOPPING", "the service is stopping; connect again and resume"
                )
                await _abort(context, stopping)
            except Exception as error:
                await _abort(context, _judge(method, error))
            finally:
                if task is not None:
                    self._streams.discard(task)

        return handle


class _Collector:
    """Stands in for a server, to receive what a generated `add_…_to_server` registers."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers come again below, by name."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.services[service] = handlers


def _judge(method: str, error: Exception) -> BoardwrightError:
    """The error to answer with. A defect is logged with its text and answered without."""
    known = translate(error)
    if known is not None:
        return known
    _log.error("%s failed", method, exc_info=error)
    trace = tracing.current_trace_id()
    return Internal(
        "INTERNAL", f"the service failed; its log has the cause under trace id {trace}", trace_id=trace
    )


async def _abort(context: Any, error: BoardwrightError) -> None:
    """End the RPC with the error's status. Raises: grpc.aio.AbortError, always."""
    status = to_status(error)
    code = next(c for c in grpc.StatusCode if c.value[0] == error.number)
    await context.abort(code, error.message, (("grpc-status-details-bin", status.SerializeToString()),))
