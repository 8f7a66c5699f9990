"""The OpenAPI document, made from the route table and the protos' descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from boardwright.gateway.rest.api import method
from boardwright.gateway.rest.routes import Route

_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
}
_TEXTS = {"google.protobuf.Timestamp": "date-time", "google.protobuf.Duration": "duration"}
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details. `reason` is stable and for programs, `detail` for people.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "reason": {"type": "string"},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def openapi_document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.http_method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Boardwright",
            "version": version,
            "description": "The same API as gRPC's; the comments of the proto files say what each call does.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    rpc = method(route.rpc)
    service, _, name = route.rpc.partition(".")
    parameters = [
        {"name": variable, "in": "path", "required": True, "schema": {"type": "string"}}
        for variable in route.variables
    ]
    answers = "application/x-ndjson" if rpc.streams else "application/json"
    operation: dict[str, Any] = {
        "operationId": "_".join([service, name, *route.variables]),
        "tags": [service],
        "summary": name,
        "responses": {
            "200": {
                "description": "A stream of messages, one a line." if rpc.streams else "Done.",
                "content": {answers: {"schema": _reference(rpc.response.DESCRIPTOR, schemas)}},
            },
            "default": {
                "description": "Refused, or failed.",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if route.http_method in ("GET", "DELETE"):
        parameters += _query(rpc.request.DESCRIPTOR, route)
    else:
        schema = _reference(rpc.request.DESCRIPTOR, schemas)
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    operation["parameters"] = parameters
    return operation


def _query(descriptor: Any, route: Route) -> list[dict[str, Any]]:
    return [
        {"name": field.name, "in": "query", "required": False, "schema": _field(field, {})}
        for field in descriptor.fields
        if field.message_type is None and field.name != route.field
    ]


def _reference(descriptor: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    # Short names are unique within a service; jobs' and blobs' Blob are not the same, so the package leads.
    parts = descriptor.full_name.split(".")
    name = ".".join([parts[2], *parts[4:]]) if descriptor.full_name.startswith("boardwright.") else parts[-1]
    if name not in schemas:
        schemas[name] = {}  # first, since messages may hold themselves
        properties = {field.name: _field(field, schemas) for field in descriptor.fields}
        schemas[name] = {"type": "object", "properties": properties}
    return {"$ref": f"#/components/schemas/{name}"}


def _field(field: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _single(value, schemas)}
    single = _single(field, schemas)
    if field.is_repeated:
        return {"type": "array", "items": single}
    may_be_null = field.message_type is not None and field.containing_oneof is None
    return {"anyOf": [single, {"type": "null"}]} if may_be_null else single


def _single(field: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        text = _TEXTS.get(field.message_type.full_name)
        return {"type": "string", "format": text} if text else _reference(field.message_type, schemas)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "format": "byte"}
    return dict(_NUMBERS.get(field.cpp_type, {"type": "string"}))
