"""What must pass through the gateway's gRPC port unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2_grpc
from boardwright.rpc.errors import NotFound, from_rpc_error, to_status


@pytest.fixture
async def registry(gateway: Any) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        yield registry_pb2_grpc.RegistryStub(channel)


async def test_messages_and_metadata_pass_in_both_directions(gateway: Any, registry: Any) -> None:
    seen: dict[str, Any] = {}

    async def get_model(request: bytes, context: Any) -> bytes:
        seen["request"] = pb.GetModelRequest.FromString(request)
        seen["metadata"] = dict(context.invocation_metadata())
        await context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"), ("x-raw-bin", b"\x00\xff")))
        return pb.Model(name="projects/p/models/m").SerializeToString()

    gateway.service.unary["GetModel"] = get_model
    call = registry.GetModel(
        pb.GetModelRequest(name="projects/p/models/m"),
        metadata=(("authorization", "Bearer t"), ("traceparent", "00-1"), ("x-raw-bin", b"\x01")),
    )
    assert (await call).name == "projects/p/models/m"
    assert seen["request"].name == "projects/p/models/m"
    assert seen["metadata"]["authorization"] == "Bearer t"
    assert seen["metadata"]["traceparent"] == "00-1"
    assert seen["metadata"]["x-raw-bin"] == b"\x01"
    assert dict(await call.initial_metadata())["x-first"] == "1"
    trailing = dict(await call.trailing_metadata())
    assert (trailing["x-last"], trailing["x-raw-bin"]) == ("2", b"\x00\xff")


async def test_an_error_keeps_its_status_reason_and_metadata(gateway: Any, registry: Any) -> None:
    error = NotFound("MODEL_NOT_FOUND", "there is no model m", model="m")

    async def get_model(request: bytes, context: Any) -> bytes:
        details = to_status(error).SerializeToString()
        await context.abort(grpc.StatusCode.NOT_FOUND, error.message, (("grpc-status-details-bin", details),))

    gateway.service.unary["GetModel"] = get_model
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await registry.GetModel(pb.GetModelRequest(name="projects/p/models/m"))
    told = from_rpc_error(caught.value)
    assert (type(told), told.reason, told.message) == (NotFound, "MODEL_NOT_FOUND", error.message)
    assert told.metadata == {"model": "m"}


async def test_the_caller_s_deadline_reaches_the_service(gateway: Any, registry: Any) -> None:
    remaining: list[float] = []

    async def get_model(request: bytes, context: Any) -> bytes:
        remaining.append(context.time_remaining())
        await asyncio.sleep(30)
        return b""

    gateway.service.unary["GetModel"] = get_model
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await registry.GetModel(pb.GetModelRequest(name="n"), timeout=2.0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # gRPC rounds a timeout up on the wire; what the gateway itself would allow is a minute and more.
    assert 0 < remaining[0] < 3


async def test_a_cancelled_call_is_cancelled_at_the_service(gateway: Any, registry: Any) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def get_model(request: bytes, context: Any) -> bytes:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    gateway.service.unary["GetModel"] = get_model
    call = registry.GetModel(pb.GetModelRequest(name="n"))
    waiting = asyncio.ensure_future(_outcome(call))
    await asyncio.wait_for(begun.wait(), 120)
    call.cancel()
    await waiting
    await asyncio.wait_for(cancelled.wait(), 120)


async def _outcome(call: Any) -> object:
    try:
        return await call
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        return error


async def test_a_stream_passes_message_by_message_and_ends_when_the_caller_leaves(
    gateway: Any, registry: Any
) -> None:
    sent, left = asyncio.Event(), asyncio.Event()

    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            yield pb.Event(cursor="1").SerializeToString()
            await sent.wait()  # only sent once the first has arrived: nothing is held back
            yield pb.Event(cursor="2").SerializeToString()
            await asyncio.sleep(30)
        finally:
            left.set()

    gateway.service.streams["WatchEvents"] = watch
    call = registry.WatchEvents(pb.WatchEventsRequest(parent="projects/p"))
    assert (await asyncio.wait_for(call.read(), 120)).cursor == "1"
    sent.set()
    assert (await asyncio.wait_for(call.read(), 120)).cursor == "2"
    call.cancel()
    await asyncio.wait_for(left.wait(), 120)


async def test_an_error_ends_a_stream_with_its_details(gateway: Any, registry: Any) -> None:
    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield pb.Event(cursor="1").SerializeToString()
        details = to_status(NotFound("GONE", "it went")).SerializeToString()
        await context.abort(grpc.StatusCode.NOT_FOUND, "it went", (("grpc-status-details-bin", details),))

    gateway.service.streams["WatchEvents"] = watch
    call = registry.WatchEvents(pb.WatchEventsRequest(parent="projects/p"))
    assert (await call.read()).cursor == "1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert from_rpc_error(caught.value).reason == "GONE"


async def test_a_service_that_is_away_is_named_and_found_again(gateway: Any, registry: Any) -> None:
    async def get_model(request: bytes, context: Any) -> bytes:
        return b""

    gateway.service.unary["GetModel"] = get_model
    await gateway.service.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await registry.GetModel(pb.GetModelRequest(name="n"))
    told = from_rpc_error(caught.value)
    assert (told.code, told.reason) == ("UNAVAILABLE", "SERVICE_UNAVAILABLE")
    assert told.metadata == {"service": "registry"}
    await gateway.service.start()
    async with asyncio.timeout(120):
        while True:
            try:
                await registry.GetModel(pb.GetModelRequest(name="n"))
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


async def test_a_method_that_nobody_has_is_unimplemented(gateway: Any) -> None:
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/elsewhere.v1.Service/Get")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_newer_than_the_gateway_passes(gateway: Any) -> None:
    async def newer(request: bytes, context: Any) -> bytes:
        return request * 2

    gateway.service.unary["AddedLater"] = newer
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        call = channel.unary_unary("/boardwright.api.registry.v1.Registry/AddedLater")
        assert await call(b"ab") == b"abab"


async def test_a_stopping_gateway_ends_its_streams_at_once_and_tells_them_to_resume(
    gateway: Any, registry: Any
) -> None:
    opened = asyncio.Event()

    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        if not request:
            yield pb.Event(cursor="1").SerializeToString()
        else:
            opened.set()
        await asyncio.Event().wait()

    gateway.service.streams["WatchEvents"] = watch
    events = registry.WatchEvents(pb.WatchEventsRequest())
    assert (await events.read()).cursor == "1"
    quiet = asyncio.ensure_future(gateway.http.get("/v1/projects/p:watchEvents"))
    await opened.wait()
    gateway.stop.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events.read()
    assert from_rpc_error(caught.value).reason == "SERVICE_STOPPING"
    answer = await quiet
    assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_STOPPING")
