"""Who did what: the audit logs of all services as one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from boardwright.client.connection import Connection, every_page

if TYPE_CHECKING:
    from boardwright.api.calibration.v1.calibration_pb2 import AuditEvent as DatasetEvent
    from boardwright.api.delivery.v1.delivery_pb2 import AuditEvent as FleetEvent
    from boardwright.api.registry.v1.registry_pb2 import AuditEvent as ModelEvent

    AuditEvent = ModelEvent | DatasetEvent | FleetEvent


def audit(
    connection: Connection, project: str, model: str, *, where: str = "", limit: int = 0
) -> Iterator[AuditEvent]:
    """The events of a project's models, datasets and fleets, newest first, at most `limit` (0: all).

    Args:
        model: full name of the only model to tell of, "" for everything.
        where: over actor, method, resource and create_time.

    Raises:
        InvalidArgument: FILTER_INVALID.
    """
    from boardwright.api.calibration.v1 import calibration_pb2
    from boardwright.api.delivery.v1 import delivery_pb2
    from boardwright.api.registry.v1 import registry_pb2

    sources: list[tuple[Any, Any]] = [(connection.registry, registry_pb2)]
    if model:
        below = f'(resource = "{model}" OR resource : "{model}/")'
        where = f"({where}) AND {below}" if where else below
    else:
        sources += [(connection.calibration, calibration_pb2), (connection.delivery, delivery_pb2)]
    logs = [
        every_page(
            stub.ListAuditEvents,
            messages.ListAuditEventsRequest(parent=f"projects/{project}", filter=where),
            "events",
            limit,
        )
        for stub, messages in sources
    ]
    newest = heapq.merge(*logs, key=lambda event: event.create_time.ToNanoseconds(), reverse=True)
    return islice(newest, limit or None)
