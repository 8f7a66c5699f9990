"""The audit log and the event log, written in the transaction of the change."""

from __future__ import annotations

from boardwright.calibration.ports import AuditEvent, Caller
from boardwright.database import Row, Transaction, filters
from boardwright.database.listing import Listing, Page

_AUDIT = Listing(
    "audit_events",
    "id",
    {
        "actor": filters.Field("actor"),
        "method": filters.Field("method"),
        "resource": filters.Field("resource"),
        "create_time": filters.Field("create_us", "time"),
    },
)


def record(tx: Transaction, project: str, caller: Caller, resource: str, now_us: int) -> None:
    """Add one line."""
    tx.execute(
        "INSERT INTO audit_events (project, actor, service, method, resource, create_us)"
        " VALUES (:project, :actor, :service, :method, :resource, :now)",
        project=project,
        actor=caller.actor,
        service=caller.service,
        method=caller.method,
        resource=resource,
        now=now_us,
    )


def page_of(tx: Transaction, project: str, page: Page) -> tuple[list[AuditEvent], str]:
    """A page, newest first."""
    return _AUDIT.read(tx, page, _to_event, {"project": project})


def _to_event(row: Row) -> AuditEvent:
    return AuditEvent(
        row["id"], row["actor"], row["service"], row["method"], row["resource"], row["create_us"]
    )
