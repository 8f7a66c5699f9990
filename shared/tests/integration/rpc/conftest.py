"""A servicer behind a real server."""

import asyncio
import contextlib
from dataclasses import replace

import grpc
import pytest

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2_grpc
from boardwright.rpc import server as rpc_server
from boardwright.rpc.auth import current_principal, permits
from boardwright.rpc.errors import from_rpc_error
from boardwright.rpc.server import ServerSettings, Service, serve
from boardwright.telemetry import current_traceparent
from boardwright.testing.services import write_tokens

NAME = "projects/default/models/m"


class Servicer(registry_pb2_grpc.RegistryServicer):
    """Answers a few methods with what the tests need."""

    def __init__(self):
        self.seen = []
        self.fails = []
        self.watching, self.answering = asyncio.Event(), asyncio.Event()
        self.let_go, self.held = asyncio.Event(), asyncio.Semaphore(0)

    async def GetModel(self, request, context):
        principal = current_principal()
        self.seen.append((principal.actor, principal.service, current_traceparent()))
        if self.fails:
            raise self.fails.pop()
        return pb.Model(name=request.name)

    async def CreateModel(self, request, context):
        self.seen.append(request.request_id)
        return pb.Model(name=request.parent)

    async def UpdateModel(self, request, context):
        await asyncio.sleep(30)

    async def ListModels(self, request, context):
        """Answers once the test says so."""
        self.held.release()
        await self.answering.wait()
        return pb.ListModelsResponse()

    async def ListStages(self, request, context):
        """A long poll: answers once the test says so."""
        self.held.release()
        await self.answering.wait()
        return pb.ListStagesResponse()

    async def WatchEvents(self, request, context):
        try:
            yield pb.Event(cursor="1")
            self.watching.set()
            await self.answering.wait()
            yield pb.Event(cursor="2")
        finally:
            self.let_go.set()


@contextlib.asynccontextmanager
async def served(tmp_path, servicer):
    """The servicer behind a real server, stopped as by SIGTERM.

    No signal is sent: one that meets no handler would end the process of all tests. That a service ends by
    SIGTERM is seen where services are processes.
    """
    tokens = write_tokens(tmp_path / "tokens.json")
    methods = [m.name for m in pb.DESCRIPTOR.services_by_name["Registry"].methods]
    long_poll = replace(permits("viewer", "parent"), waits=True)
    table = {m: permits("viewer") for m in methods} | {
        "GetModel": permits("viewer", "name"), "UpdateModel": permits("admin", "model.name"),
        "SetAlias": permits("viewer", "alias.name"), "ListStages": long_poll,
    }  # fmt: skip
    settings = ServerSettings("test", "127.0.0.1:0", tmp_path / "tokens.json", "k", tmp_path / "ready.json")
    ready = asyncio.get_running_loop().create_future()
    service = Service(registry_pb2_grpc.add_RegistryServicer_to_server, servicer, table)
    stop = asyncio.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rpc_server, "_on_signals", lambda: stop)
        running = asyncio.create_task(serve([service], settings, on_ready=ready.set_result))
        endpoint = await asyncio.wait_for(ready, 30)
    try:
        yield endpoint, tokens
    finally:
        stop.set()
        await asyncio.wait_for(running, 30)


async def failure(call):
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return from_rpc_error(caught.value)
