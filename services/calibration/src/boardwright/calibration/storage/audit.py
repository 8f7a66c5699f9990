"""The audit log and the event log, written in the transaction of the change."""

from __future__ import annotations

from boardwright.calibration.ports import AuditEvent, Caller, Page
from boardwright.database import Transaction, filters, paging

_FIELDS = {
    "actor": filters.Field("actor"),
    "method": filters.Field("method"),
    "resource": filters.Field("resource"),
    "create_time": filters.Field("create_us", "time"),
}


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
    size = paging.page_size(page.size)
    scope = ("audit", project, page.filter)
    after = paging.decode(page.token, *scope)
    condition = filters.to_condition(page.filter, _FIELDS, tx.dialect)
    rows = tx.all(
        "SELECT id, actor, service, method, resource, create_us FROM audit_events"
        f" WHERE project = :project AND id < :after AND {condition.sql} ORDER BY id DESC LIMIT :limit",
        project=project,
        after=after[0] if after else 2**62,
        limit=size + 1,
        **condition.parameters,
    )
    events = [
        AuditEvent(r["id"], r["actor"], r["service"], r["method"], r["resource"], r["create_us"])
        for r in rows
    ]
    return paging.cut(events, size, lambda event: [event.id], *scope)
