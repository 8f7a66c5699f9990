"""Who did what, as it is recorded with every change."""

from __future__ import annotations

from dataclasses import dataclass

from boardwright.delivery.domain.resources import AuditEvent
from boardwright.delivery.publishing import now_us
from boardwright.rpc.auth import current_principal


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Taken before a transaction, which runs in another context (a database's thread).

    Attributes:
        actor: whose deed it is.
        service: the service that forwarded the call, "" for none.
    """

    actor: str
    service: str

    @classmethod
    def current(cls) -> Caller:
        """The principal of the RPC that runs now."""
        principal = current_principal()
        return cls(principal.actor, principal.service)

    def deed(self, project: str, method: str, resource: str, reason: str) -> AuditEvent:
        """The audit event of what the caller does now."""
        return AuditEvent(0, project, self.actor, self.service, method, resource, reason, now_us())
