"""Every method has its permission, and no permission is without a method."""

from boardwright.api.builder.v1 import builder_pb2
from boardwright.builder.rpc.permissions import PERMISSIONS


def test_the_table_covers_the_proto() -> None:
    methods = {method.name for method in builder_pb2.DESCRIPTOR.services_by_name["Builder"].methods}
    assert set(PERMISSIONS) == methods


def test_changing_something_needs_more_than_looking() -> None:
    for name, permission in PERMISSIONS.items():
        looks = name.startswith(("Get", "List", "Watch"))
        assert permission.role == ("viewer" if looks else "developer"), name
