from __future__ import annotations

import pytest

from boardwright.gateway import problems
from boardwright.rpc import errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidArgument("FIELD_INVALID", "m"), 400),
        (errors.Unauthenticated("TOKEN_MISSING", "m"), 401),
        (errors.PermissionDenied("PERMISSION_MISSING", "m"), 403),
        (errors.NotFound("MODEL_NOT_FOUND", "m"), 404),
        (errors.FailedPrecondition("GATE_REFUSED", "m"), 409),
        (errors.Aborted("ETAG_MISMATCH", "m"), 409),
        (errors.OutOfRange("CURSOR_EXPIRED", "m"), 410),
        (errors.ResourceExhausted("BLOB_TOO_LARGE", "m"), 413),
        (errors.ResourceExhausted("QUOTA", "m"), 429),
        (errors.ResourceExhausted("STORE_FULL", "m"), 507),
        (errors.ResourceExhausted("DATABASE_FULL", "m"), 507),
        (errors.ResourceExhausted("QUERY_TOO_LONG", "m"), 400),
        (errors.ResourceExhausted("TOO_MANY_CALLS", "m"), 429),
        (errors.Unavailable("DATABASE_UNAVAILABLE", "m"), 503),
        (errors.DeadlineExceeded("DEADLINE_EXCEEDED", "m"), 504),
        (errors.Internal("INTERNAL", "m"), 500),
    ],
)
def test_each_error_has_its_status(error: errors.BoardwrightError, status: int) -> None:
    assert problems.status_of(error) == status
    assert problems.document_of(error)["status"] == status


def test_a_document_tells_reason_and_metadata_apart_from_the_words() -> None:
    error = errors.Unauthenticated("TIMESTAMP_SKEWED", "set the clock", server_time="2026-11-21T08:00:00Z")
    document = problems.document_of(error)
    assert document["reason"] == "TIMESTAMP_SKEWED"
    assert document["detail"] == "set the clock"
    assert document["metadata"] == {"server_time": "2026-11-21T08:00:00Z"}
    assert document["server_time"] == "2026-11-21T08:00:00Z"
    assert problems.headers_of(error)["WWW-Authenticate"].startswith("Bearer")


def test_who_is_told_to_wait_is_told_how_long() -> None:
    assert problems.headers_of(errors.Unavailable("STORE_UNAVAILABLE", "m")) == {"Retry-After": "1"}
