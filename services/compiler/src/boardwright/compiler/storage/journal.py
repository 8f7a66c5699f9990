"""The audit log and the outbox: what happened to a job, in the transaction that made it happen."""

from __future__ import annotations

from boardwright.database import Transaction
from boardwright.database.outbox import Outbox
from boardwright.jobs.domain.job import Job


class SqlJournal:
    """See ``boardwright.compiler.ports.Journal``."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def record(self, tx: Transaction, job: Job) -> None:
        """Write one audit row and one event for the job's state."""
        action = f"job.{job.state.value}"
        tx.execute(
            "INSERT INTO audit_events (project, actor, action, resource, create_us)"
            " VALUES (:project, :actor, :action, :resource, :create_us)",
            project=job.project,
            actor=job.principal,
            action=action,
            resource=job.name,
            create_us=job.update_us,
        )
        payload = {
            "job": job.name,
            "state": job.state.value,
            "title": job.title,
            "results": list(job.results),
        }
        self._outbox.append(tx, job.name, action, payload, job.update_us)
