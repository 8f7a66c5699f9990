"""The table against the protos: nothing is forgotten, nothing is made up."""

from __future__ import annotations

import pytest

from boardwright.gateway.rest.api import method, service_descriptors
from boardwright.gateway.rest.openapi import openapi_document
from boardwright.gateway.rest.routes import ROUTES, Route

# For workers, for devices (which have endpoints of their own), and between services.
_NOT_FOR_PEOPLE = {
    "Registry.RecordStep",
    "Blobs.SetReference",
    "Blobs.DeleteReference",
    "Calibration.ListAuditEvents",
    "Delivery.ListAuditEvents",
    "Delivery.EnrolDevice",
    "Delivery.ReportDevice",
    "Delivery.AuthorizeDownload",
    "Delivery.GetTufFile",
}


def test_every_rpc_for_people_has_a_route() -> None:
    all_rpcs = {
        f"{service.name}.{rpc.name}"
        for service in service_descriptors()
        if service.name != "Leases"
        for rpc in service.methods
    }
    routed = {route.rpc for route in ROUTES}
    assert all_rpcs - routed == _NOT_FOR_PEOPLE


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.http_method} {route.template}")
def test_a_route_fills_a_field_that_its_request_has(route: Route) -> None:
    descriptor = method(route.rpc).request.DESCRIPTOR
    for name in filter(None, route.field.split(".")):
        field = descriptor.fields_by_name[name]
        descriptor = field.message_type


def test_no_path_is_taken_twice() -> None:
    taken = [(route.http_method, route.path) for route in ROUTES]
    assert len(taken) == len(set(taken))


def test_names_in_paths_become_resource_names() -> None:
    by_rpc = {(route.http_method, route.rpc): route for route in ROUTES}
    values = {"project": "p", "model": "m", "release": "3"}
    promote = by_rpc["POST", "Registry.PromoteRelease"]
    assert promote.resource_name(values) == "projects/p/models/m/releases/3"
    assert by_rpc["GET", "Registry.ListModels"].resource_name(values) == "projects/p"
    assert by_rpc["GET", "Registry.GetLineage"].resource_name(values) == "projects/p"


def test_the_openapi_document_is_whole() -> None:
    document = openapi_document(ROUTES, "1.0")
    schemas = document["components"]["schemas"]
    pending, referenced = [document], set()
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "$ref" in value:
                referenced.add(value["$ref"].removeprefix("#/components/schemas/"))
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    assert referenced <= set(schemas)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(ROUTES)
    identifiers = [operation["operationId"] for operation in operations]
    assert len(set(identifiers)) == len(identifiers)
    assert schemas["registry.Gate"]["properties"]["accuracy_drop"] == {
        "$ref": "#/components/schemas/registry.AccuracyDrop"
    }
    rung = {"$ref": "#/components/schemas/compiler.Rung"}  # not one of several: written as null where unset
    assert schemas["compiler.Recipe"]["properties"]["rung"] == {"anyOf": [rung, {"type": "null"}]}
