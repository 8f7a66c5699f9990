"""No request reaches from the project in which it is permitted into another."""

import pytest

from boardwright.api.delivery.v1 import delivery_pb2
from boardwright.delivery.rpc.permissions import PERMISSIONS
from boardwright.testing.tenancy import straying_requests

CASES = straying_requests(delivery_pb2.DESCRIPTOR.services_by_name["Delivery"], PERMISSIONS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_request_stays_in_its_project(case):
    case.assert_refused()


def test_what_names_a_resource_is_among_the_cases():
    named = {str(case) for case in CASES}
    assert {"CreateBundles.release", "CreateRollout.release", "CreateRollout.fleet"} <= named
