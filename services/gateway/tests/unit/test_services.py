from __future__ import annotations

import pytest

from boardwright.gateway.services import SERVICE_HEADER, SERVICES, service_of


@pytest.mark.parametrize(
    ("method", "service"),
    [
        ("/boardwright.api.registry.v1.Registry/GetModel", "registry"),
        ("/boardwright.api.registry.v1.Blobs/GetBlob", "registry"),
        ("/boardwright.api.delivery.v1.Delivery/GetFleet", "delivery"),
        ("/boardwright.api.compiler.v1.Compiler/NewerThanThisGateway", "compiler"),
        ("/boardwright.api.nothing.v1.Nothing/Get", None),
        ("/grpc.health.v1.Health/Check", None),
        ("", None),
    ],
)
def test_a_method_belongs_to_the_service_that_its_package_names(method: str, service: str | None) -> None:
    assert service_of(method) == service


def test_leases_go_where_the_caller_says_and_nowhere_else() -> None:
    method = "/boardwright.api.jobs.v1.Leases/AcquireLease"
    assert service_of(method, [(SERVICE_HEADER, "builder")]) == "builder"
    assert service_of(method, [(SERVICE_HEADER, "registry")]) is None
    assert service_of(method) is None


def test_there_are_five_services() -> None:
    assert len(set(SERVICES)) == 5
