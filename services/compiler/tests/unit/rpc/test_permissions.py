"""Every method of the Compiler API has a permission, and no permission is for a method that is gone."""

from __future__ import annotations

from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.compiler.rpc.permissions import PERMISSIONS
from boardwright.compiler.service import ROLES


def test_the_table_and_the_proto_agree():
    service = compiler_pb2.DESCRIPTOR.services_by_name["Compiler"]
    assert set(PERMISSIONS) == {method.name for method in service.methods}


def test_the_resource_of_each_permission_is_a_field_of_the_request():
    service = compiler_pb2.DESCRIPTOR.services_by_name["Compiler"]
    for method in service.methods:
        resource = PERMISSIONS[method.name].resource
        assert not resource or resource in method.input_type.fields_by_name


def test_the_roles_of_datasets_are_those_that_passes_read():
    assert ROLES == ("calibration", "evaluation", "training")
