import grpc
import pytest

from boardwright.rpc import errors
from boardwright.rpc.errors import BoardwrightError, NotFound, Unavailable


@pytest.mark.parametrize("kind", BoardwrightError.__subclasses__())
def test_every_error_survives_the_wire(kind):
    there = errors.to_status(kind("SOME_REASON", "do this next", name="x", other="y"))
    assert [d.type_url for d in there.details] == ["type.googleapis.com/google.rpc.ErrorInfo"]
    back = errors.from_status(there)
    assert type(back) is kind
    assert (back.reason, back.message, back.metadata) == (
        "SOME_REASON",
        "do this next",
        {"name": "x", "other": "y"},
    )


@pytest.mark.parametrize("kind", BoardwrightError.__subclasses__())
def test_codes_and_numbers_are_grpcs(kind):
    assert grpc.StatusCode[kind.code].value[0] == kind.number


class FakeCall(grpc.RpcError):
    def __init__(self, code, details, metadata=()):
        super().__init__(details)
        self._answer = (code, details, metadata)

    def code(self):
        return self._answer[0]

    def details(self):
        return self._answer[1]

    def trailing_metadata(self):
        return self._answer[2]


def test_an_rpc_error_with_status_details_gives_the_servers_error():
    status = errors.to_status(NotFound("MODEL_NOT_FOUND", "push it first", name="m"))
    call = FakeCall(
        grpc.StatusCode.NOT_FOUND, "push it first", (("grpc-status-details-bin", status.SerializeToString()),)
    )
    error = errors.from_rpc_error(call)
    assert isinstance(error, NotFound)
    assert error.reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNREACHABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.CANCELLED, "CALL_CANCELLED"),
        (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN"),
        (grpc.StatusCode.INTERNAL, ""),
    ],
)
def test_an_error_of_the_connection_gets_a_reason_of_its_own(code, reason):
    error = errors.from_rpc_error(FakeCall(code, "detail"))
    assert error.reason == reason
    assert "detail" in error.message or reason == "DEADLINE_EXCEEDED"


def test_an_outage_is_never_not_found():
    assert isinstance(errors.from_rpc_error(FakeCall(grpc.StatusCode.UNAVAILABLE, "refused")), Unavailable)
