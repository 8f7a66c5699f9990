"""Every method of the protos has a permission, and every permission can find its project."""

import pytest

from boardwright.api.registry.v1 import blobs_pb2, registry_pb2
from boardwright.registry.rpc import blobs_servicer, permissions
from boardwright.rpc.auth import Principal, RoleGrant, check_request
from boardwright.rpc.errors import PermissionDenied

TABLES = [
    (registry_pb2.DESCRIPTOR.services_by_name["Registry"], permissions.PERMISSIONS),
    (blobs_pb2.DESCRIPTOR.services_by_name["Blobs"], blobs_servicer.PERMISSIONS),
]


@pytest.mark.parametrize(("service", "table"), TABLES)
def test_the_table_names_exactly_the_methods(service, table):
    assert set(table) == {method.name for method in service.methods}


@pytest.mark.parametrize(("service", "table"), TABLES)
def test_the_resource_field_exists_in_the_request(service, table):
    for method in service.methods:
        descriptor = method.input_type
        *messages, last = table[method.name].resource.split(".")
        for part in messages:
            descriptor = descriptor.fields_by_name[part].message_type
        if last:
            assert descriptor.fields_by_name[last].type == descriptor.fields_by_name[last].TYPE_STRING


@pytest.mark.parametrize(("service", "table"), TABLES)
def test_nothing_is_public_and_viewers_only_read(service, table):
    reading = ("Get", "List", "Watch", "Read", "CreateDownload")
    for name, permission in table.items():
        assert not permission.public
        assert (permission.role == "viewer") <= name.startswith(reading), name


def test_collecting_concerns_every_project():
    collect = blobs_servicer.PERMISSIONS["CollectBlobs"]
    admin_of_one = Principal("x", roles=(RoleGrant("admin", "vision"),))
    with pytest.raises(PermissionDenied):
        check_request(admin_of_one, collect, blobs_pb2.CollectBlobsRequest())
    check_request(Principal("x", roles=(RoleGrant("admin", "*"),)), collect, blobs_pb2.CollectBlobsRequest())


@pytest.mark.parametrize("method", ["SetReference", "DeleteReference"])
def test_what_services_hold_is_not_let_go_by_a_developer(method):
    permission = blobs_servicer.PERMISSIONS[method]
    may = {
        role
        for role in ("viewer", "developer", "releaser", "worker", "admin", "service")
        if Principal("x", roles=(RoleGrant(role, "vision"),)).may(permission, "vision")
    }
    assert may == {"admin", "service"}
