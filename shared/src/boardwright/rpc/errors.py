"""The errors that services raise, and their way over the wire.

A service raises one of these with a stable `reason` (UPPER_SNAKE), a message that says what to do next, and
metadata. The server turns it into `google.rpc.Status` with exactly one `ErrorInfo` (AIP-193);
`from_rpc_error` turns that back on the other side. gRPC is imported only when one does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import grpc
    from google.rpc import status_pb2

DOMAIN = "boardwright.dev"


class BoardwrightError(Exception):
    """Root of the errors that callers are told about. `reason` is stable; the message is for people."""

    code: ClassVar[str] = "UNKNOWN"
    number: ClassVar[int] = 2

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason!r}, {self.message!r})"


class Cancelled(BoardwrightError):
    """The caller, or an operator, cancelled the work."""

    code, number = "CANCELLED", 1


class InvalidArgument(BoardwrightError):
    """The request is wrong whatever the state of the system."""

    code, number = "INVALID_ARGUMENT", 3


class DeadlineExceeded(BoardwrightError):
    """The caller's deadline passed first; a change may or may not have been made."""

    code, number = "DEADLINE_EXCEEDED", 4


class NotFound(BoardwrightError):
    """The named resource does not exist. Never used for an outage."""

    code, number = "NOT_FOUND", 5


class AlreadyExists(BoardwrightError):
    """What the request would create is there, with other content."""

    code, number = "ALREADY_EXISTS", 6


class PermissionDenied(BoardwrightError):
    """The caller is known and may not do this."""

    code, number = "PERMISSION_DENIED", 7


class ResourceExhausted(BoardwrightError):
    """A quota or a disk is full; metadata names it."""

    code, number = "RESOURCE_EXHAUSTED", 8


class FailedPrecondition(BoardwrightError):
    """The state of the system refuses the request until somebody changes that state."""

    code, number = "FAILED_PRECONDITION", 9


class Aborted(BoardwrightError):
    """Somebody else changed the resource meanwhile (etag): read it again, then decide again."""

    code, number = "ABORTED", 10


class OutOfRange(BoardwrightError):
    """A cursor or range lies outside what exists; start again from a list."""

    code, number = "OUT_OF_RANGE", 11


class Internal(BoardwrightError):
    """A defect of the service. Its text stays in the service's log, under the trace id in the metadata."""

    code, number = "INTERNAL", 13


class Unavailable(BoardwrightError):
    """Something the service needs is away; the same call may be repeated."""

    code, number = "UNAVAILABLE", 14


class Unauthenticated(BoardwrightError):
    """No valid token came with the call."""

    code, number = "UNAUTHENTICATED", 16


_BY_NUMBER: dict[int, type[BoardwrightError]] = {k.number: k for k in BoardwrightError.__subclasses__()}


def error_type(number: int) -> type[BoardwrightError]:
    """The class for a canonical status number (5 → NotFound)."""
    return _BY_NUMBER.get(number, BoardwrightError)


def to_status(error: BoardwrightError) -> status_pb2.Status:
    """`google.rpc.Status` with exactly one ErrorInfo."""
    from google.protobuf import any_pb2
    from google.rpc import error_details_pb2, status_pb2

    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    detail = any_pb2.Any()
    detail.Pack(info)
    return status_pb2.Status(code=error.number, message=error.message, details=[detail])


def from_status(status: status_pb2.Status) -> BoardwrightError:
    """The error that `to_status` was given."""
    from google.rpc import error_details_pb2

    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return error_type(status.code)(info.reason, status.message, **dict(info.metadata))
    return error_type(status.code)("", status.message)


def from_rpc_error(error: grpc.RpcError) -> BoardwrightError:
    """What a client should see of a `grpc.RpcError` or `grpc.aio.AioRpcError`.

    A failure of the connection itself, which carries no ErrorInfo, gets a reason of its own
    (SERVICE_UNREACHABLE, DEADLINE_EXCEEDED, CALL_CANCELLED).
    """
    from google.rpc import status_pb2

    metadata: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    pairs: Iterable[tuple[str, Any]] = metadata or ()
    for key, value in pairs:
        if key == "grpc-status-details-bin":
            status = status_pb2.Status()
            status.ParseFromString(value)
            return from_status(status)
    code = error.code() if hasattr(error, "code") else None
    number = code.value[0] if code is not None else 2
    details = (error.details() if hasattr(error, "details") else None) or str(error)
    kind = error_type(number)
    if kind is Unavailable and "http1" in details:
        return Unavailable(
            "SERVICE_UNREACHABLE",
            f"what answers there speaks HTTP/1, as REST does; give the host:port of gRPC instead ({details})",
        )
    if kind is Unavailable:
        return Unavailable(
            "SERVICE_UNREACHABLE", f"the service cannot be reached ({details}); is it running?"
        )
    if kind is DeadlineExceeded:
        return DeadlineExceeded(
            "DEADLINE_EXCEEDED", "the call took longer than its deadline; repeat it with the same request_id"
        )
    if kind is Cancelled:
        return Cancelled("CALL_CANCELLED", f"the call was cancelled ({details})")
    if number == 12:
        return FailedPrecondition(
            "METHOD_UNKNOWN",
            f"the service does not know this method ({details}); is it older than this client?",
        )
    return kind("", details)
