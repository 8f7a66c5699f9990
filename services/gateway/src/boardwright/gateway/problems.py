"""Errors as RFC 9457 problem details."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from boardwright.rpc.errors import BoardwrightError

MEDIA_TYPE = "application/problem+json"

_STATUS = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}
_STATUS_OF_REASON = {
    "BLOB_TOO_LARGE": 413,
    "BODY_TOO_LARGE": 413,
    "STORE_FULL": 507,
    "DATABASE_FULL": 507,
    "QUERY_TOO_LONG": 400,
    "CURSOR_EXPIRED": 410,
    "METHOD_UNKNOWN": 501,
}
_RETRY_SECONDS = "1"


def status_of(error: BoardwrightError) -> int:
    """The HTTP status that tells this error."""
    return _STATUS_OF_REASON.get(error.reason, _STATUS.get(error.code, 500))


def headers_of(error: BoardwrightError) -> dict[str, str]:
    """The headers that belong to its status."""
    status = status_of(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="boardwright"'}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": _RETRY_SECONDS}
    return {}


def document_of(error: BoardwrightError) -> dict[str, Any]:
    """The problem document: `reason` is stable and for programs, `detail` for people."""
    status = status_of(error)
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Client Closed Request"
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "reason": error.reason,
        "metadata": dict(error.metadata),
    }
    if "server_time" in error.metadata:  # devices with a wrong clock look for it
        document["server_time"] = error.metadata["server_time"]
    return document
