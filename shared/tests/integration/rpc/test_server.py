"""The server and the channels together, over a real port: errors, callers, traces, streams, stopping."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2_grpc
from boardwright.database import DatabaseFull, DatabaseUnavailable
from boardwright.rpc import server as rpc_server
from boardwright.rpc.auth import permits
from boardwright.rpc.client import connect, connect_sync
from boardwright.rpc.errors import FailedPrecondition
from boardwright.rpc.handling import Gate
from boardwright.rpc.server import ServerSettings, Service, serve
from boardwright.telemetry import metrics_text, span

from .conftest import NAME, Servicer, failure, served


async def test_a_call_carries_principal_and_trace(tmp_path):
    servicer = Servicer()
    async with served(tmp_path, servicer) as (endpoint, tokens):
        async with connect(endpoint, token=tokens["service"], principal="ann") as channel:
            with span("push") as pushed:
                await registry_pb2_grpc.RegistryStub(channel).GetModel(pb.GetModelRequest(name=NAME))
        ((actor, service, traceparent),) = servicer.seen
    assert (actor, service) == ("ann", "service")
    assert traceparent.split("-")[1] == pushed.trace_id


async def test_the_ready_file_names_the_endpoint_and_goes_at_the_end(tmp_path):
    async with served(tmp_path, Servicer()) as (endpoint, _):
        assert json.loads((tmp_path / "ready.json").read_text())["endpoint"] == endpoint
    assert not (tmp_path / "ready.json").exists()


async def test_a_request_that_names_another_projects_resource_never_reaches_the_servicer(tmp_path):
    alias = pb.Alias(name=f"{NAME}/aliases/a", version="projects/other/models/m/versions/1")
    async with (
        served(tmp_path, Servicer()) as (endpoint, tokens),
        connect(endpoint, token=tokens["service"]) as channel,
    ):
        call = registry_pb2_grpc.RegistryStub(channel).SetAlias(pb.SetAliasRequest(alias=alias))
        error = await failure(call)
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", "alias.version")


@pytest.mark.parametrize(
    ("raised", "code", "reason"),
    [
        (
            FailedPrecondition("GATE_REFUSED", "measure first", stage="production"),
            "FAILED_PRECONDITION",
            "GATE_REFUSED",
        ),
        (DatabaseUnavailable("start it, then repeat"), "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
        (DatabaseFull("free space"), "RESOURCE_EXHAUSTED", "DATABASE_FULL"),
    ],
)
async def test_errors_arrive_with_reason_and_text(tmp_path, raised, code, reason):
    servicer = Servicer()
    servicer.fails = [raised] * 5
    async with (
        served(tmp_path, servicer) as (endpoint, tokens),
        connect(endpoint, token=tokens["viewer"]) as channel,
    ):
        error = await failure(registry_pb2_grpc.RegistryStub(channel).GetModel(pb.GetModelRequest(name=NAME)))
    assert (error.code, error.reason, error.message) == (code, reason, str(raised))


async def test_a_defect_keeps_its_text_for_the_log(tmp_path, caplog):
    servicer = Servicer()
    servicer.fails = [RuntimeError("secret path /etc/shadow")]
    async with (
        served(tmp_path, servicer) as (endpoint, tokens),
        connect(endpoint, token=tokens["viewer"]) as channel,
    ):
        with span("call") as made:
            error = await failure(
                registry_pb2_grpc.RegistryStub(channel).GetModel(pb.GetModelRequest(name=NAME))
            )
    assert error.code == "INTERNAL"
    assert "secret" not in str(error)
    assert error.metadata == {"trace_id": made.trace_id}
    assert "secret path" in caplog.text


async def test_callers_without_token_or_right_are_refused(tmp_path):
    servicer = Servicer()
    async with served(tmp_path, servicer) as (endpoint, tokens):
        for token, reason in (
            ("", "TOKEN_MISSING"),
            ("wrong", "TOKEN_UNKNOWN"),
            (tokens["worker"], "PERMISSION_MISSING"),
        ):
            async with connect(endpoint, token=token) as channel:
                stub = registry_pb2_grpc.RegistryStub(channel)
                assert (await failure(stub.GetModel(pb.GetModelRequest(name=NAME)))).reason == reason
    assert servicer.seen == []


async def test_an_outage_is_retried_by_the_channel(tmp_path):
    servicer = Servicer()
    servicer.fails = [DatabaseUnavailable("once"), DatabaseUnavailable("twice")]
    async with (
        served(tmp_path, servicer) as (endpoint, tokens),
        connect(endpoint, token=tokens["viewer"]) as channel,
    ):
        answer = await registry_pb2_grpc.RegistryStub(channel).GetModel(pb.GetModelRequest(name=NAME))
    assert answer.name == NAME
    assert len(servicer.seen) == 3


async def test_a_create_gets_a_request_id_so_that_its_retry_is_safe(tmp_path):
    servicer = Servicer()
    async with (
        served(tmp_path, servicer) as (endpoint, tokens),
        connect(endpoint, token=tokens["admin"]) as channel,
    ):
        stub = registry_pb2_grpc.RegistryStub(channel)
        await stub.CreateModel(pb.CreateModelRequest(parent="projects/default"))
        await stub.CreateModel(pb.CreateModelRequest(parent="projects/default", request_id="mine"))
    first, second = servicer.seen
    assert len(first) == 32
    assert second == "mine"


async def test_the_synchronous_channel_does_the_same(tmp_path):
    servicer = Servicer()
    async with served(tmp_path, servicer) as (endpoint, tokens):

        def call():
            with connect_sync(endpoint, token=tokens["viewer"]) as channel:
                stub = registry_pb2_grpc.RegistryStub(channel)
                answer, _ = stub.GetModel.with_call(pb.GetModelRequest(name=NAME))
                return answer.name, stub.GetModel.future(pb.GetModelRequest(name=NAME)).result().name

        assert await asyncio.to_thread(call) == (NAME, NAME)


async def test_a_call_has_a_deadline(tmp_path):
    async with (
        served(tmp_path, Servicer()) as (endpoint, tokens),
        connect(endpoint, token=tokens["admin"], deadline_seconds=0.2) as channel,
    ):
        stub = registry_pb2_grpc.RegistryStub(channel)
        error = await failure(stub.UpdateModel(pb.UpdateModelRequest(model=pb.Model(name=NAME))))
    assert error.reason == "DEADLINE_EXCEEDED"


async def test_a_service_that_is_not_there_is_unreachable(tmp_path):
    async with connect("127.0.0.1:1", token="x", deadline_seconds=120) as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        error = await failure(stub.GetModel(pb.GetModelRequest(name=NAME)))
    assert error.reason == "SERVICE_UNREACHABLE"


async def test_an_address_of_rest_is_told_from_an_outage(tmp_path):
    async def refuse(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as rest:
        port = rest.sockets[0].getsockname()[1]
        async with connect(f"127.0.0.1:{port}", token="x", deadline_seconds=120) as channel:
            stub = registry_pb2_grpc.RegistryStub(channel)
            error = await failure(stub.GetModel(pb.GetModelRequest(name=NAME)))
    assert error.reason == "SERVICE_UNREACHABLE"
    assert "speaks HTTP/1" in error.message


async def test_health_answers_without_a_token(tmp_path):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with served(tmp_path, Servicer()) as (endpoint, _), grpc.aio.insecure_channel(endpoint) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_taken_address_is_told(tmp_path):
    async with served(tmp_path, Servicer()) as (endpoint, _):
        settings = ServerSettings("test", endpoint, tmp_path / "tokens.json")
        with pytest.raises(OSError, match="BOARDWRIGHT_TEST_LISTEN"):
            await serve([], settings)


def test_a_method_without_a_permission_keeps_the_service_from_starting(tmp_path):
    gate = Gate(rpc_server.TokenFile(tmp_path / "t"), "")
    service = Service(
        registry_pb2_grpc.add_RegistryServicer_to_server, Servicer(), {"GetModel": permits("viewer")}
    )
    with pytest.raises(LookupError, match="CreateModel"):
        gate.register(service, None)


async def test_a_failing_background_task_ends_the_service(tmp_path):
    async def broken():
        raise RuntimeError("broken")

    settings = ServerSettings("test", "127.0.0.1:0", Path("none"))
    with pytest.raises(RuntimeError, match="broken"):
        await serve([], settings, background=[broken])


async def test_calls_are_counted(tmp_path):
    async with (
        served(tmp_path, Servicer()) as (endpoint, tokens),
        connect(endpoint, token=tokens["viewer"]) as channel,
    ):
        await registry_pb2_grpc.RegistryStub(channel).GetModel(pb.GetModelRequest(name=NAME))
    assert 'boardwright_rpc_duration_seconds_count{method="Registry/GetModel",code="OK"}' in metrics_text()


async def test_metrics_are_served_where_asked_for(tmp_path):
    from boardwright.rpc.metrics_endpoint import start_metrics

    endpoint = await start_metrics("127.0.0.1:0")
    host, port = endpoint.sockets[0].getsockname()[:2]

    async def get(request):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        if writer.can_write_eof():
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 5)
        except ConnectionResetError:  # closed while there was more to read
            return b""
        finally:
            writer.close()

    answer = await get(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"# TYPE boardwright_rpc_duration_seconds histogram" in answer
    assert (await get(b"GET /other HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.0 404")
    assert (await get(b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.0 404")
    for odd in (b"", b"\xff" * 100, b"x" * 100_000):
        assert await get(odd) == b""
    endpoint.close()
    await endpoint.wait_closed()
