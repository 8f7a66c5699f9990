from boardwright.api.calibration.v1 import calibration_pb2
from boardwright.calibration.rpc.permissions import PERMISSIONS


def test_every_method_has_a_permission() -> None:
    service = calibration_pb2.DESCRIPTOR.services_by_name["Calibration"]
    assert set(PERMISSIONS) == {method.name for method in service.methods}
    for method in service.methods:
        field = PERMISSIONS[method.name].resource
        assert field in method.input_type.fields_by_name, f"{method.name} has no field {field}"
