"""How many calls and streams one caller may have, and how streams end."""

import asyncio
import contextlib

import grpc

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2_grpc
from boardwright.rpc import handling
from boardwright.rpc.client import connect
from boardwright.rpc.turns import Turns

from .conftest import NAME, Servicer, failure, served


async def test_one_callers_burst_waits_for_its_turns_and_others_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(handling, "Turns", lambda: Turns(at_a_time=3, most_waiting=4))
    servicer = Servicer()
    async with served(tmp_path, servicer) as (endpoint, tokens), contextlib.AsyncExitStack() as channels:

        async def stub(role, principal=None):
            connected = connect(endpoint, token=tokens[role], principal=principal)
            return registry_pb2_grpc.RegistryStub(await channels.enter_async_context(connected))

        busy = await stub("viewer")
        burst = [asyncio.ensure_future(busy.ListModels(pb.ListModelsRequest()).code()) for _ in range(8)]
        # Eight calls: three run, four wait, one is refused before any of them has ended.
        refused, _ = await asyncio.wait(burst, return_when=asyncio.FIRST_COMPLETED)
        assert [each.result() for each in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        error = await failure(busy.GetModel(pb.GetModelRequest(name=NAME)))
        assert (error.reason, error.metadata["principal"]) == ("TOO_MANY_CALLS", "viewer")
        for_busy = await stub("service", "viewer")  # what a service does for a user is that user's
        assert (await failure(for_busy.GetModel(pb.GetModelRequest(name=NAME)))).reason == "TOO_MANY_CALLS"
        for role in ("developer", "service"):
            assert (await (await stub(role)).GetModel(pb.GetModelRequest(name=NAME))).name == NAME
        for _ in range(3):
            await servicer.held.acquire()
        assert servicer.held.locked()
        waiting = [each for each in burst if not each.done()]
        waiting.pop().cancel()  # who hangs up gives its turn back
        servicer.answering.set()
        assert await asyncio.gather(*waiting) == [grpc.StatusCode.OK] * 6
        assert (await busy.GetModel(pb.GetModelRequest(name=NAME))).name == NAME


async def test_streams_and_long_polls_take_no_turn_and_are_bounded_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(handling, "Turns", lambda: Turns(at_a_time=1, most_waiting=0, most_open=4))
    servicer = Servicer()
    async with (
        served(tmp_path, servicer) as (endpoint, tokens),
        connect(endpoint, token=tokens["viewer"]) as channel,
        connect(endpoint, token=tokens["service"]) as services,
    ):
        stub = registry_pb2_grpc.RegistryStub(channel)
        request = pb.ListStagesRequest(parent=NAME)
        polls = [asyncio.ensure_future(stub.ListStages(request)) for _ in range(2)]
        for _ in polls:
            await servicer.held.acquire()
        watches = [stub.WatchEvents(pb.WatchEventsRequest()) for _ in range(2)]
        assert [(await watch.read()).cursor for watch in watches] == ["1", "1"]
        assert (await stub.GetModel(pb.GetModelRequest(name=NAME))).name == NAME  # the one turn is free
        for refused in (stub.ListStages(request), stub.WatchEvents(pb.WatchEventsRequest()).read()):
            assert (await failure(refused)).reason == "TOO_MANY_CALLS"
        unbounded = registry_pb2_grpc.RegistryStub(services).WatchEvents(pb.WatchEventsRequest())
        assert (await unbounded.read()).cursor == "1"
        servicer.answering.set()
        await asyncio.gather(*polls)
        assert (await stub.ListStages(request)) == pb.ListStagesResponse()  # what has ended makes room


async def test_a_stream_ends_for_whose_token_was_revoked(tmp_path, monkeypatch):
    monkeypatch.setattr("boardwright.rpc.auth._RECHECK_SECONDS", 0.0)
    servicer = Servicer()
    async with (
        served(tmp_path, servicer) as (endpoint, tokens),
        connect(endpoint, token=tokens["viewer"]) as channel,
    ):
        events = registry_pb2_grpc.RegistryStub(channel).WatchEvents(pb.WatchEventsRequest())
        assert (await events.read()).cursor == "1"
        (tmp_path / "tokens.json").write_text("[]")
        servicer.answering.set()
        assert (await failure(events.read())).reason == "TOKEN_UNKNOWN"
        assert servicer.let_go.is_set()


async def test_many_calls_at_once_are_all_answered(tmp_path):
    async with (
        served(tmp_path, Servicer()) as (endpoint, tokens),
        connect(endpoint, token=tokens["viewer"], deadline_seconds=300) as channel,
    ):
        stub = registry_pb2_grpc.RegistryStub(channel)
        calls = [stub.GetModel(pb.GetModelRequest(name=NAME)).code() for _ in range(2000)]
        assert set(await asyncio.gather(*calls)) == {grpc.StatusCode.OK}


async def test_stopping_ends_streams_at_once_and_tells_them_to_resume(tmp_path):
    servicer = Servicer()
    async with served(tmp_path, servicer) as (endpoint, tokens):
        channel = connect(endpoint, token=tokens["viewer"])
        events = registry_pb2_grpc.RegistryStub(channel).WatchEvents(pb.WatchEventsRequest())
        assert (await events.read()).cursor == "1"
        await servicer.watching.wait()
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 3
    error = await failure(events.read())
    assert error.code == "UNAVAILABLE"
    await channel.close()
