"""No request reaches from the project in which it is permitted into another."""

import pytest

from boardwright.api.calibration.v1 import calibration_pb2
from boardwright.calibration.rpc.permissions import PERMISSIONS
from boardwright.testing.tenancy import straying_requests

CASES = straying_requests(calibration_pb2.DESCRIPTOR.services_by_name["Calibration"], PERMISSIONS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_request_stays_in_its_project(case):
    case.assert_refused()
