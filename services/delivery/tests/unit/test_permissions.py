"""Every method has a permission, and every permission is of a method."""

from __future__ import annotations

from boardwright.api.delivery.v1 import delivery_pb2
from boardwright.delivery.rpc.permissions import PERMISSIONS


def test_permissions_match_the_proto() -> None:
    methods = delivery_pb2.DESCRIPTOR.services_by_name["Delivery"].methods
    assert {method.name for method in methods} == set(PERMISSIONS)
    for method in methods:
        field = PERMISSIONS[method.name].resource.partition(".")[0]
        assert not field or field in {each.name for each in method.input_type.fields}, method.name
