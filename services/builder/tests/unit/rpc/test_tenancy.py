"""No request reaches from the project in which it is permitted into another."""

import pytest

from boardwright.api.builder.v1 import builder_pb2
from boardwright.builder.rpc.permissions import PERMISSIONS
from boardwright.testing.tenancy import straying_requests

CASES = straying_requests(builder_pb2.DESCRIPTOR.services_by_name["Builder"], PERMISSIONS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_request_stays_in_its_project(case):
    case.assert_refused()


def test_what_names_a_resource_is_among_the_cases():
    named = {str(case) for case in CASES}
    assert {"CreateBuildJob.variant", "CreateBuildJob.golden_dataset", "CreateMeasureJob.artifacts"} <= named
