"""No request reaches from the project in which it is permitted into another."""

import pytest

from boardwright.api.registry.v1 import blobs_pb2, registry_pb2
from boardwright.registry.rpc import blobs_servicer, permissions
from boardwright.testing.tenancy import straying_requests

CASES = [
    *straying_requests(registry_pb2.DESCRIPTOR.services_by_name["Registry"], permissions.PERMISSIONS),
    *straying_requests(blobs_pb2.DESCRIPTOR.services_by_name["Blobs"], blobs_servicer.PERMISSIONS),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_request_stays_in_its_project(case):
    case.assert_refused()
