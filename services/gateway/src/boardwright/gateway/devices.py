"""What devices speak over HTTPS; the protocol is described in the delivery service's README.

Devices have no token: enrolment carries its own, reports and downloads are signed with the device's key,
which the delivery service checks. TUF files are public to whoever knows the fleet's name; their signatures
protect them.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import grpc
from fastapi import APIRouter, Request, Response
from google.protobuf import json_format
from google.protobuf.message import Message

from boardwright.api.delivery.v1 import delivery_pb2, delivery_pb2_grpc
from boardwright.content.canonical import read_json
from boardwright.gateway.rest.mirror import forwarded, translate
from boardwright.gateway.services import Connections
from boardwright.rpc.documents import to_document
from boardwright.rpc.errors import InvalidArgument, ResourceExhausted

DEVICE_HEADER = "boardwright-device"
TIMESTAMP_HEADER = "boardwright-timestamp"
NONCE_HEADER = "boardwright-nonce"
SIGNATURE_HEADER = "boardwright-signature"

LARGEST_BODY_BYTES = 256 << 10
_DEADLINE_SECONDS = 20.0
_IMMUTABLE = "public, max-age=31536000, immutable"


def device_routes(connections: Connections, service_token: str) -> APIRouter:
    """The endpoints under `/tuf` and `/device/v1`."""
    router = APIRouter()
    stub: Any = delivery_pb2_grpc.DeliveryStub(connections.channel("delivery"))

    async def call(rpc: str, message: Message, request: Request) -> Any:
        metadata = [("authorization", f"Bearer {service_token}"), *forwarded(request, "traceparent")]
        try:
            return await getattr(stub, rpc)(message, metadata=metadata, timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise translate(error, "delivery") from error

    @router.get("/tuf/projects/{project}/fleets/{fleet}/{path:path}")
    async def tuf_file(project: str, fleet: str, path: str, request: Request) -> Response:
        """A file of a fleet's TUF repository."""
        message = delivery_pb2.GetTufFileRequest(fleet=f"projects/{project}/fleets/{fleet}", path=path)
        answer = await call("GetTufFile", message, request)
        changes = path == "metadata/timestamp.json"
        headers = {"Cache-Control": "no-cache" if changes else _IMMUTABLE}
        return Response(answer.data, media_type="application/octet-stream", headers=headers)

    @router.post("/device/v1/enroll")
    async def enroll(request: Request) -> Response:
        """Enrol a device with a one-time token."""
        message = delivery_pb2.EnrolDeviceRequest()
        try:
            document = read_json(await _body(request))
            if not isinstance(document, dict):
                raise ValueError("it is no JSON object")
            json_format.ParseDict(document, message)
        except (ValueError, TypeError, AttributeError, json_format.ParseError) as error:
            raise InvalidArgument("FIELD_INVALID", f"the body is no enrolment: {error}") from error
        return _answer(await call("EnrolDevice", message, request))

    @router.post("/device/v1/report")
    async def report(request: Request) -> Response:
        """Take a device's signed report."""
        body = await _body(request)
        message = delivery_pb2.ReportDeviceRequest(signature=_signature(request), body=body)
        return _answer(await call("ReportDevice", message, request))

    @router.get("/device/v1/blobs/{digest}")
    async def blob(digest: str, request: Request) -> Response:
        """Send a device to a file of a bundle of its fleet."""
        message = delivery_pb2.AuthorizeDownloadRequest(signature=_signature(request), digest=digest)
        answer = await call("AuthorizeDownload", message, request)
        return Response(status_code=307, headers={"Location": answer.url, "Cache-Control": "no-store"})

    return router


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY_BYTES:
            raise ResourceExhausted("BODY_TOO_LARGE", f"the body is larger than {LARGEST_BODY_BYTES} bytes")
    return bytes(body)


def _signature(request: Request) -> delivery_pb2.DeviceSignature:
    """The four headers of a signed request.

    Raises:
        InvalidArgument: FIELD_INVALID, one is missing or malformed.
    """
    try:
        return delivery_pb2.DeviceSignature(
            device=request.headers[DEVICE_HEADER],
            timestamp_seconds=int(request.headers[TIMESTAMP_HEADER]),
            nonce=request.headers[NONCE_HEADER],
            signature=base64.b64decode(request.headers[SIGNATURE_HEADER], validate=True),
        )
    except KeyError as error:
        raise InvalidArgument("FIELD_INVALID", f"the header {error.args[0]} is missing") from error
    except (ValueError, binascii.Error) as error:
        raise InvalidArgument("FIELD_INVALID", f"a signature header is malformed: {error}") from error


def _answer(message: Message) -> Response:
    return Response(json.dumps(to_document(message)), media_type="application/json")
