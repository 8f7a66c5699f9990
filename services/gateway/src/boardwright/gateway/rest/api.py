"""The protos' services by name, found in their descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its path, the service that has it, and its messages."""

    path: str
    service: str
    request: type[Message]
    response: type[Message]
    streams: bool


@cache
def service_descriptors() -> tuple[Any, ...]:
    """Descriptors of every gRPC service behind the gateway."""
    from boardwright.api.builder.v1 import builder_pb2
    from boardwright.api.calibration.v1 import calibration_pb2
    from boardwright.api.compiler.v1 import compiler_pb2
    from boardwright.api.delivery.v1 import delivery_pb2
    from boardwright.api.jobs.v1 import jobs_pb2
    from boardwright.api.registry.v1 import blobs_pb2, registry_pb2

    files = (registry_pb2, blobs_pb2, calibration_pb2, compiler_pb2, builder_pb2, delivery_pb2, jobs_pb2)
    return tuple(service for file in files for service in file.DESCRIPTOR.services_by_name.values())


@cache
def method(rpc: str) -> Method:
    """The RPC called "Service.Method".

    Raises:
        KeyError: there is none.
    """
    wanted, _, name = rpc.partition(".")
    for service in service_descriptors():
        if service.name == wanted:
            found = service.methods_by_name[name]
            return Method(
                path=f"/{service.full_name}/{name}",
                service=service.full_name.split(".")[2],
                request=GetMessageClass(found.input_type),
                response=GetMessageClass(found.output_type),
                streams=bool(found.server_streaming),
            )
    raise KeyError(rpc)
