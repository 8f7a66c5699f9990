"""/health: whether the services behind the gateway serve."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from boardwright.gateway.services import SERVICES, Connections

_DEADLINE_SECONDS = 1.0


async def service_states(connections: Connections) -> dict[str, str]:
    """The state of each service: "SERVING", "NOT_SERVING", or "UNREACHABLE"."""
    states = await asyncio.gather(*(_state(connections.channel(service)) for service in SERVICES))
    return dict(zip(SERVICES, states, strict=True))


async def _state(channel: Any) -> str:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=_DEADLINE_SECONDS
        )
    except grpc.aio.AioRpcError:
        return "UNREACHABLE"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
