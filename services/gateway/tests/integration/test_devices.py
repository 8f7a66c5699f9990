"""What devices speak, as the delivery service's README describes it."""

from __future__ import annotations

import base64
from typing import Any

import grpc

from boardwright.api.delivery.v1 import delivery_pb2 as pb
from boardwright.rpc.errors import NotFound, Unauthenticated, to_status

_SIGNED = {
    "Boardwright-Device": "projects/p/fleets/f/devices/d",
    "Boardwright-Timestamp": "1790000000",
    "Boardwright-Nonce": "n1",
    "Boardwright-Signature": base64.b64encode(b"signature").decode(),
}


async def _refuse(context: Any, code: grpc.StatusCode, error: Any) -> None:
    details = to_status(error).SerializeToString()
    await context.abort(code, error.message, (("grpc-status-details-bin", details),))


async def test_tuf_files_are_bytes_and_only_the_timestamp_changes(gateway: Any) -> None:
    async def get_file(request: bytes, context: Any) -> bytes:
        asked = pb.GetTufFileRequest.FromString(request)
        assert dict(context.invocation_metadata())["authorization"] == "Bearer gateway-token"
        if asked.path == "metadata/9.root.json":
            await _refuse(context, grpc.StatusCode.NOT_FOUND, NotFound("TUF_FILE_NOT_FOUND", "none"))
        return pb.GetTufFileResponse(data=f"{asked.fleet} {asked.path}".encode()).SerializeToString()

    gateway.service.unary["GetTufFile"] = get_file
    base = "/tuf/projects/p/fleets/f/"
    answer = await gateway.http.get(base + "metadata/timestamp.json")
    assert answer.content == b"projects/p/fleets/f metadata/timestamp.json"
    assert answer.headers["cache-control"] == "no-cache"
    answer = await gateway.http.get(base + "targets/bundles/ab.json")
    assert "immutable" in answer.headers["cache-control"]
    answer = await gateway.http.get(base + "metadata/9.root.json")
    assert (answer.status_code, answer.json()["reason"]) == (404, "TUF_FILE_NOT_FOUND")


async def test_enrolment_passes_every_field(gateway: Any) -> None:
    seen: list[Any] = []

    async def enrol(request: bytes, context: Any) -> bytes:
        seen.append(pb.EnrolDeviceRequest.FromString(request))
        answer = pb.EnrolDeviceResponse(
            device="projects/p/fleets/f/devices/d", tuf_root=b"root", tuf_path="t"
        )
        answer.server_time.FromJsonString("2026-11-21T08:00:00Z")
        return answer.SerializeToString()

    gateway.service.unary["EnrolDevice"] = enrol
    answer = await gateway.http.post(
        "/device/v1/enroll",
        json={
            "token": "bwe1.x",
            "device_id": "d",
            "public_key": base64.b64encode(b"k" * 32).decode(),
            "host": {"board": "x86-64", "cpu_features": ["avx2"]},
            "agent_version": "1",
            "signature": base64.b64encode(b"s").decode(),
        },
    )
    assert answer.json() == {
        "device": "projects/p/fleets/f/devices/d",
        "tuf_root": base64.b64encode(b"root").decode(),
        "tuf_path": "t",
        "server_time": "2026-11-21T08:00:00Z",
    }
    assert seen[0].public_key == b"k" * 32
    assert list(seen[0].host.cpu_features) == ["avx2"]
    assert "date" in answer.headers
    for odd in (b"[]", b"[" * 200_000, b'{"host": ' * 20_000):
        assert (await gateway.http.post("/device/v1/enroll", content=odd)).status_code == 400


async def test_a_report_s_body_passes_byte_for_byte(gateway: Any) -> None:
    seen: list[Any] = []

    async def report(request: bytes, context: Any) -> bytes:
        seen.append(pb.ReportDeviceRequest.FromString(request))
        return pb.ReportDeviceResponse(poll_seconds=30).SerializeToString()

    gateway.service.unary["ReportDevice"] = report
    body = b'{ "spaces" :  "matter" }\n'
    answer = await gateway.http.post("/device/v1/report", content=body, headers=_SIGNED)
    assert answer.json()["poll_seconds"] == 30
    assert seen[0].body == body
    assert seen[0].signature == pb.DeviceSignature(
        device="projects/p/fleets/f/devices/d",
        timestamp_seconds=1790000000,
        nonce="n1",
        signature=b"signature",
    )


async def test_a_wrong_clock_is_told_the_server_s_time(gateway: Any) -> None:
    async def report(request: bytes, context: Any) -> bytes:
        error = Unauthenticated("TIMESTAMP_SKEWED", "the clock is wrong", server_time="2026-11-21T08:00:00Z")
        await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, error)
        return b""

    gateway.service.unary["ReportDevice"] = report
    answer = await gateway.http.post("/device/v1/report", content=b"{}", headers=_SIGNED)
    assert answer.status_code == 401
    assert answer.json()["server_time"] == "2026-11-21T08:00:00Z"


async def test_unsigned_requests_never_reach_the_service(gateway: Any) -> None:
    for missing in _SIGNED:
        headers = {name: value for name, value in _SIGNED.items() if name != missing}
        answer = await gateway.http.post("/device/v1/report", content=b"{}", headers=headers)
        assert answer.status_code == 400
        assert missing.lower() in answer.json()["detail"]
    headers = _SIGNED | {"Boardwright-Signature": "no base64!"}
    assert (await gateway.http.post("/device/v1/report", content=b"{}", headers=headers)).status_code == 400


async def test_a_download_is_sent_on_to_where_the_blob_is(gateway: Any) -> None:
    async def authorize(request: bytes, context: Any) -> bytes:
        asked = pb.AuthorizeDownloadRequest.FromString(request)
        return pb.AuthorizeDownloadResponse(
            url=f"http://store/{asked.digest}", size_bytes=3
        ).SerializeToString()

    gateway.service.unary["AuthorizeDownload"] = authorize
    digest = "sha256:" + "0" * 64
    answer = await gateway.http.get(f"/device/v1/blobs/{digest}", headers=_SIGNED)
    assert (answer.status_code, answer.headers["location"]) == (307, f"http://store/{digest}")
