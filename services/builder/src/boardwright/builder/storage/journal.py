"""The audit log."""

from __future__ import annotations

import time

from boardwright.database import Transaction


def add_audit_event(tx: Transaction, project: str, actor: str, method: str, resource: str) -> None:
    """Record a deed in the transaction that does it."""
    tx.execute(
        "INSERT INTO audit_events (project, actor, method, resource, create_us)"
        " VALUES (:project, :actor, :method, :resource, :now)",
        project=project,
        actor=actor,
        method=method,
        resource=resource,
        now=time.time_ns() // 1000,
    )
