"""Requests that are permitted in one project and name something of another, for each service's own test.

CASES = straying_requests(delivery_pb2.DESCRIPTOR.services_by_name["Delivery"], PERMISSIONS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_request_stays_in_its_project(case):
    case.assert_refused()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from boardwright.rpc.auth import Permission
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.tenancy import FREE_TEXT, check_names

_OWN = "projects/mine"
_FOREIGN = "projects/other/models/m/versions/1"


@dataclass(frozen=True)
class StrayingRequest:
    """A request of `method` whose `field` alone names another project's resource."""

    method: str
    field: str
    request: Any
    permission: Permission

    def __str__(self) -> str:
        return f"{self.method}.{self.field}"

    def assert_refused(self) -> None:
        """Fail unless the server refuses the request for this field."""
        project = self.permission.project(self.request)
        assert project == "mine"
        with pytest.raises(InvalidArgument) as refused:
            check_names(self.request, project)
        assert (refused.value.reason, refused.value.metadata["field"]) == ("FIELD_INVALID", self.field)


def straying_requests(service: Any, permissions: Mapping[str, Permission]) -> list[StrayingRequest]:
    """One request for every text field of every method that is permitted in a project."""
    found = []
    for method in service.methods:
        permission = permissions[method.name]
        if not permission.resource:
            continue
        for path in _text_fields(method.input_type, ()):
            if ".".join(path) == permission.resource:
                continue
            request = GetMessageClass(method.input_type)()
            _put(request, permission.resource.split("."), _OWN)
            _put(request, list(path), _FOREIGN)
            found.append(StrayingRequest(method.name, ".".join(path), request, permission))
    return found


def _text_fields(descriptor: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for field in descriptor.fields:
        path = (*above, field.name)
        if field.name in FREE_TEXT:
            continue
        if _is_map(field):
            if field.message_type.fields_by_name["value"].type == field.TYPE_STRING:
                yield path
        elif field.type == field.TYPE_STRING:
            yield path
        elif field.message_type is not None:
            yield from _text_fields(field.message_type, path)


def _put(message: Any, path: list[str], text: str) -> None:
    """Set a field, making one element of each list and map on the way."""
    *above, last = path
    for name in above:
        repeated = message.DESCRIPTOR.fields_by_name[name].is_repeated
        message = getattr(message, name).add() if repeated else getattr(message, name)
    field = message.DESCRIPTOR.fields_by_name[last]
    if _is_map(field):
        getattr(message, last)["key"] = text
    elif field.is_repeated:
        getattr(message, last).append(text)
    else:
        setattr(message, last, text)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
