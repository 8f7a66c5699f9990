"""How every change is made: once per request_id, with its audit record and its event, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from boardwright.database import Database, Transaction, requests
from boardwright.database.outbox import Outbox
from boardwright.registry.domain.resources import AuditEvent
from boardwright.registry.ports import Stores

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC as the services see it. `fingerprint` is the hash of the request where it has a request_id."""

    actor: str
    method: str
    service: str = ""
    request_id: str = ""
    fingerprint: str = ""
    traceparent: str = ""


def now_us() -> int:
    """The time in microseconds since the epoch."""
    return time.time_ns() // 1000


class Recorder:
    """The database with its journal."""

    def __init__(
        self, database: Database, stores: Stores, outbox: Outbox, clock: Callable[[], int] = now_us
    ) -> None:
        self.database = database
        self.stores = stores
        self.outbox = outbox
        self._clock = clock

    async def change(self, key: str, change: Callable[[Transaction, int], R]) -> R:
        """Run `change(tx, now_us)` in one transaction; `key` names what it contends for."""
        return await self.database.write(lambda tx: change(tx, self._clock()), key=key)

    async def create(
        self,
        call: Call,
        key: str,
        make: Callable[[Transaction, int], R],
        identify: Callable[[R], str],
        load: Callable[[Transaction, str], R],
    ) -> R:
        """Run `make(tx, now_us)` once per request_id.

        `identify` gives what is stored as the answer; a repeated request gets `load(tx, identity)`.

        Raises: AlreadyExists REQUEST_ID_REUSED; what `make` raises.
        """

        def run(tx: Transaction) -> R:
            stored = requests.recall(tx, call.actor, call.method, call.request_id, call.fingerprint)
            if stored is not None:
                return load(tx, stored.decode())
            made = make(tx, self._clock())
            requests.remember(
                tx, call.actor, call.method, call.request_id, call.fingerprint, identify(made).encode()
            )
            return made

        return await self.database.write(run, key=key)

    def record(
        self,
        tx: Transaction,
        call: Call,
        now: int,
        project: str,
        resource: str,
        kind: str,
        data: Any,
        reason: str = "",
    ) -> None:
        """Add the audit record and the event of a change to its transaction.

        `kind` is the event's type ("version.created"), `data` the resource after the change (a dataclass).
        """
        self.stores.journal.add_audit_event(
            tx, AuditEvent(project, 0, call.actor, call.service, call.method, resource, reason, now)
        )
        payload: Mapping[str, Any] = {"actor": call.actor, "data": data}
        self.outbox.append(tx, resource, kind, payload, now)
