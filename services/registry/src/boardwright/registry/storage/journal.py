"""The audit log, and the numbers that the database gives out."""

from __future__ import annotations

from boardwright.database import Transaction
from boardwright.database.filters import Field
from boardwright.database.listing import Listing
from boardwright.registry.domain.resources import AuditEvent, ModelKey
from boardwright.registry.ports import Page
from boardwright.registry.storage.rows import to_audit_event

_AUDIT = Listing(
    "audit_events",
    "id",
    {
        "actor": Field("actor"),
        "method": Field("method"),
        "resource": Field("resource"),
        "create_time": Field("create_us", "time"),
    },
)


def next_number(tx: Transaction, key: ModelKey, kind: str) -> int:
    """The next number of `kind` ("version", "release", …) of a model, from 1.

    The number belongs to the running transaction: if that fails, the next one gets the same.
    """
    row = tx.one(
        "INSERT INTO counters (project, model, kind, value) VALUES (:project, :model, :kind, 1)"
        " ON CONFLICT (project, model, kind) DO UPDATE SET value = counters.value + 1 RETURNING value",
        project=key.project,
        model=key.model,
        kind=kind,
    )
    if row is None:
        raise LookupError("INSERT … RETURNING gave no row")
    return int(row["value"])


def add_audit_event(tx: Transaction, event: AuditEvent) -> None:
    """Record a deed; its number is the database's."""
    tx.execute(
        "INSERT INTO audit_events (project, actor, service, method, resource, reason, create_us)"
        " VALUES (:project, :actor, :service, :method, :resource, :reason, :now)",
        project=event.project,
        actor=event.actor,
        service=event.service,
        method=event.method,
        resource=event.resource,
        reason=event.reason,
        now=event.create_us,
    )


def list_audit_events(tx: Transaction, project: str, page: Page) -> tuple[list[AuditEvent], str]:
    """Newest first."""
    return _AUDIT.read(tx, page, to_audit_event, {"project": project})
