"""One HTTP request becomes one RPC, and its answer JSON.

An RPC that answers with a stream becomes newline-delimited JSON (`application/x-ndjson`), or server-sent
events for who accepts `text/event-stream`. An error in mid-stream is its last line: `{"problem": {…}}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from boardwright.content.canonical import read_json
from boardwright.gateway import problems
from boardwright.gateway.proxy import service_away
from boardwright.gateway.rest.api import Method, method
from boardwright.gateway.rest.routes import Route
from boardwright.gateway.services import Connections
from boardwright.rpc.documents import to_document
from boardwright.rpc.errors import (
    BoardwrightError,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    from_rpc_error,
)

LARGEST_BODY_BYTES = 4 << 20
_LARGE_BYTES = 64 << 10
_DEADLINE_SECONDS = 60.0
_END: Any = grpc.aio.EOF  # type: ignore[attr-defined]
_FORWARDED = ("authorization", "traceparent")

Endpoint = Callable[[Request], Awaitable[Response]]
_T = TypeVar("_T")


def endpoint_for(route: Route, connections: Connections) -> Endpoint:
    """The function that answers requests to `route`."""
    rpc = method(route.rpc)

    async def answer(request: Request) -> Response:
        message = await _request_message(route, rpc, request)
        channel = connections.channel(rpc.service)
        metadata = forwarded(request, *_FORWARDED)
        if rpc.streams:
            stream = channel.unary_stream(
                rpc.path,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.response.FromString,
            )(message, metadata=metadata)
            events = "text/event-stream" in request.headers.get("accept", "")
            return await _stream(connections, stream, rpc, events)
        call = channel.unary_unary(
            rpc.path,
            request_serializer=rpc.request.SerializeToString,
            response_deserializer=rpc.response.FromString,
        )
        try:
            response = await call(message, metadata=metadata, timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise translate(error, rpc.service) from error
        return Response(await _apart(response.ByteSize(), _json, response), media_type="application/json")

    return answer


async def _apart(size_bytes: int, convert: Callable[..., _T], *arguments: Any) -> _T:
    """Convert in a thread what is large: on the event loop it would hold up every other call."""
    if size_bytes <= _LARGE_BYTES:
        return convert(*arguments)
    return await asyncio.to_thread(convert, *arguments)


def forwarded(request: Request, *names: str) -> list[tuple[str, str]]:
    """The headers that a service gets as metadata, those left out that gRPC could not carry."""
    held = [(name, request.headers[name]) for name in names if name in request.headers]
    return [(name, value) for name, value in held if value.isascii() and value.isprintable()]


def translate(error: grpc.aio.AioRpcError, service: str) -> BoardwrightError:
    """The service's error, or the one that says it is away."""
    told = from_rpc_error(error)
    return service_away(service) if told.reason == "SERVICE_UNREACHABLE" else told


async def _stream(connections: Connections, call: Any, rpc: Method, events: bool) -> Response:
    # The first message is awaited before the answer begins, so that a refusal still becomes a status.
    try:
        with connections.stream(call):
            first = await call.read()
    except grpc.aio.AioRpcError as error:
        raise translate(error, rpc.service) from error

    def line(text: bytes) -> bytes:
        return b"data: " + text + b"\n\n" if events else text + b"\n"

    async def lines() -> AsyncIterator[bytes]:
        message = first
        try:
            with connections.stream(call):
                while message is not _END:
                    yield line(_json(message))
                    message = await call.read()
        except (grpc.aio.AioRpcError, Unavailable) as error:
            told = error if isinstance(error, Unavailable) else translate(error, rpc.service)
            yield line(json.dumps({"problem": problems.document_of(told)}).encode())
        finally:
            call.cancel()

    return StreamingResponse(lines(), media_type="text/event-stream" if events else "application/x-ndjson")


async def _request_message(route: Route, rpc: Method, request: Request) -> Message:
    message = rpc.request()
    query = dict(request.query_params.multi_items())
    if route.http_method in ("GET", "DELETE"):
        _fill_from_query(message, [(key, value) for key, value in request.query_params.multi_items()])
    else:
        if query:
            raise _invalid(f"unknown query parameter {next(iter(query))!r}: fields go into the JSON body")
        await _fill_from_body(message, request)
    if route.field:
        holder: Any = message
        *outer, last = route.field.split(".")
        for name in outer:
            holder = getattr(holder, name)
        setattr(holder, last, route.resource_name(request.path_params))
    return message


async def _fill_from_body(message: Message, request: Request) -> None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY_BYTES:
            raise ResourceExhausted(
                "BODY_TOO_LARGE",
                f"the body is larger than {LARGEST_BODY_BYTES} bytes; send content through uploads instead",
            )
    if body:
        await _apart(len(body), _fill_from_json, message, bytes(body))


def _fill_from_json(message: Message, body: bytes) -> None:
    try:
        document = read_json(body)
        if not isinstance(document, dict):
            raise _invalid("the body must be a JSON object")
        json_format.ParseDict(document, message)
    except (ValueError, json_format.ParseError) as error:
        raise _invalid(f"the body does not fit {message.DESCRIPTOR.name}: {error}") from error


def _fill_from_query(message: Message, pairs: list[tuple[str, str]]) -> None:
    for key, value in pairs:
        field = message.DESCRIPTOR.fields_by_name.get(key)
        if field is None or field.message_type is not None:
            known = ", ".join(f.name for f in message.DESCRIPTOR.fields if f.message_type is None)
            raise _invalid(f"unknown query parameter {key!r}; known: {known}")
        try:
            parsed = _scalar(field, value)
            if field.is_repeated:
                getattr(message, key).append(parsed)
            else:
                setattr(message, key, parsed)
        except (ValueError, KeyError) as error:
            raise _invalid(f"query parameter {key}: {value[:80]!r} is not a valid value") from error


_INTEGERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)


def _scalar(field: Any, value: str) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_name[value].number
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
    return int(value) if field.cpp_type in _INTEGERS else value


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument("FIELD_INVALID", message)


def _json(message: Message) -> bytes:
    return json.dumps(to_document(message), ensure_ascii=False, separators=(",", ":")).encode()
