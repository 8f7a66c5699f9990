"""REST: the same calls, as JSON."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.gateway.rest import mirror
from boardwright.rpc.errors import FailedPrecondition, to_status


async def test_a_get_fills_the_request_from_path_and_query(gateway: Any) -> None:
    seen: list[Any] = []

    async def list_versions(request: bytes, context: Any) -> bytes:
        seen.append((pb.ListModelVersionsRequest.FromString(request), dict(context.invocation_metadata())))
        version = pb.ModelVersion(name="projects/p/models/m/versions/1", number=1, metrics={"top1": 0.5})
        version.create_time.FromJsonString("2026-11-21T08:00:00Z")
        return pb.ListModelVersionsResponse(versions=[version]).SerializeToString()

    gateway.service.unary["ListModelVersions"] = list_versions
    answer = await gateway.http.get(
        "/v1/projects/p/models/m/versions",
        params={"page_size": "7", "filter": "number > 3"},
        headers={"Authorization": "Bearer t"},
    )
    assert answer.status_code == 200
    request, metadata = seen[0]
    assert (request.parent, request.page_size, request.filter) == ("projects/p/models/m", 7, "number > 3")
    assert metadata["authorization"] == "Bearer t"
    version = answer.json()["versions"][0]
    assert version["number"] == 1
    assert version["metrics"] == {"top1": 0.5}
    assert version["create_time"] == "2026-11-21T08:00:00Z"


async def test_a_post_fills_the_request_from_path_and_body(gateway: Any) -> None:
    seen: list[Any] = []

    async def promote(request: bytes, context: Any) -> bytes:
        seen.append(pb.PromoteReleaseRequest.FromString(request))
        return pb.PromoteReleaseResponse(passed=True).SerializeToString()

    gateway.service.unary["PromoteRelease"] = promote
    answer = await gateway.http.post(
        "/v1/projects/p/models/m/releases/3:promote",
        json={"stage": "projects/p/models/m/stages/production", "etag": "e", "validate_only": True},
    )
    assert answer.json()["passed"] is True
    assert seen[0] == pb.PromoteReleaseRequest(
        name="projects/p/models/m/releases/3",
        stage="projects/p/models/m/stages/production",
        etag="e",
        validate_only=True,
    )


async def test_a_refusal_is_a_problem_document(gateway: Any) -> None:
    error = FailedPrecondition("GATE_REFUSED", "top1 dropped by 3 points", gate="top1")

    async def promote(request: bytes, context: Any) -> bytes:
        details = to_status(error).SerializeToString()
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION, error.message, (("grpc-status-details-bin", details),)
        )

    gateway.service.unary["PromoteRelease"] = promote
    answer = await gateway.http.post("/v1/projects/p/models/m/releases/3:promote", json={})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["reason"], document["detail"]) == ("GATE_REFUSED", "top1 dropped by 3 points")
    assert document["metadata"] == {"gate": "top1"}


async def test_bad_requests_are_named(gateway: Any) -> None:
    path = "/v1/projects/p/models"
    cases = [
        await gateway.http.get(path, params={"page_sice": "3"}),
        await gateway.http.get(path, params={"page_size": "three"}),
        await gateway.http.get(path, params={"page_size": str(2**40)}),
        await gateway.http.post(path, content=b"{not json"),
        await gateway.http.post(path, json=["no", "object"]),
        await gateway.http.post(path, json={"modle_id": "m"}),
    ]
    assert [answer.status_code for answer in cases] == [400] * 6
    assert all(answer.json()["reason"] == "FIELD_INVALID" for answer in cases)
    assert "page_size" in cases[0].json()["detail"]
    assert "modle_id" in cases[5].json()["detail"]


async def test_headers_that_grpc_cannot_carry_are_left_out(gateway: Any) -> None:
    seen = []

    async def list_models(request: bytes, context: Any) -> bytes:
        seen.extend(
            key for key, _ in context.invocation_metadata() if key in ("authorization", "traceparent")
        )
        return pb.ListModelsResponse().SerializeToString()

    gateway.service.unary["ListModels"] = list_models
    headers = {"authorization": b"Bearer \xff", "traceparent": b"a\tb"}
    answer = await gateway.http.get("/v1/projects/p/models", headers=headers)
    assert (answer.status_code, seen) == (200, [])


async def test_a_body_has_a_limit(gateway: Any) -> None:
    answer = await gateway.http.post("/v1/projects/p/models", content=b" " * (5 << 20))
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")


async def test_an_unknown_path_is_a_problem_too(gateway: Any) -> None:
    answer = await gateway.http.get("/v1/nothing")
    assert (answer.status_code, answer.json()["reason"]) == (404, "NO_SUCH_PATH")
    answer = await gateway.http.delete("/v1/projects/p/models")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_a_stream_is_one_object_a_line_and_tells_how_it_broke(gateway: Any) -> None:
    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield pb.Event(cursor="1").SerializeToString()
        yield pb.Event(cursor="2").SerializeToString()
        details = to_status(FailedPrecondition("STOPPED", "it stopped")).SerializeToString()
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION, "it stopped", (("grpc-status-details-bin", details),)
        )

    gateway.service.streams["WatchEvents"] = watch
    answer = await gateway.http.get("/v1/projects/p:watchEvents", params={"cursor": "now"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line.get("cursor") for line in lines] == ["1", "2", None]
    assert lines[2]["problem"]["reason"] == "STOPPED"
    answer = await gateway.http.get("/v1/projects/p:watchEvents", headers={"Accept": "text/event-stream"})
    assert answer.text.startswith('data: {"cursor":"1"')


async def test_a_stream_that_is_refused_at_once_has_a_status(gateway: Any) -> None:
    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        details = to_status(FailedPrecondition("NO", "no")).SerializeToString()
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION, "no", (("grpc-status-details-bin", details),)
        )
        yield b""

    gateway.service.streams["WatchEvents"] = watch
    answer = await gateway.http.get("/v1/projects/p:watchEvents")
    assert (answer.status_code, answer.json()["reason"]) == (409, "NO")


async def test_an_outage_is_never_a_not_found(gateway: Any) -> None:
    await gateway.service.stop()
    answer = await gateway.http.get("/v1/projects/p/models/m")
    assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    health = await gateway.http.get("/health")
    assert health.status_code == 503
    assert health.json()["services"]["registry"] == "UNREACHABLE"
    assert (await gateway.http.get("/health/live")).status_code == 200
    await gateway.service.start()


async def test_metrics_and_the_openapi_document_are_served(gateway: Any) -> None:
    await gateway.http.get("/v1/projects/p/models", params={"nope": "1"})
    metrics = (await gateway.http.get("/metrics")).text
    assert 'boardwright_gateway_rest_seconds_count{rpc="Registry.ListModels",status="400"}' in metrics
    document = (await gateway.http.get("/openapi.json")).json()
    assert "/v1/projects/{project}/models" in document["paths"]


async def test_large_documents_hold_up_no_other_call(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four MiB of JSON take a second of the event loop, and nobody is asked for a token before."""
    threads: list[bool] = []

    def told(convert: Any) -> Any:
        def run(*arguments: Any) -> Any:
            threads.append(threading.current_thread() is threading.main_thread())
            return convert(*arguments)

        return run

    async def echo(request: bytes, context: Any) -> bytes:
        created = pb.CreateModelRequest.FromString(request)
        return pb.Model(description=created.model.description).SerializeToString()

    gateway.service.unary["CreateModel"] = echo
    monkeypatch.setattr(mirror, "_json", told(mirror._json))
    monkeypatch.setattr(mirror, "_fill_from_json", told(mirror._fill_from_json))
    for characters in (10, 100_000):
        body = {"model_id": "m", "model": {"description": "x" * characters}}
        answer = await gateway.http.post("/v1/projects/p/models", json=body)
        assert len(answer.json()["description"]) == characters
    assert threads == [True, True, False, False]
