"""No request reaches from the project in which it is permitted into another."""

import pytest

from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.compiler.rpc.permissions import PERMISSIONS
from boardwright.testing.tenancy import straying_requests

CASES = straying_requests(compiler_pb2.DESCRIPTOR.services_by_name["Compiler"], PERMISSIONS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_request_stays_in_its_project(case):
    case.assert_refused()


def test_what_names_a_resource_is_among_the_cases():
    assert {"CreateCompileJob.version", "CreateCompileJob.datasets"} <= {str(case) for case in CASES}
