"""The ordered, resumable event log that every service keeps, written in the transaction of the change.

Delivery is at least once, in strict order per subject. On PostgreSQL ids are not commit order: a row is shown
only once every transaction that could still commit before it has ended, and rows are ordered by (transaction,
id). A cursor is "transaction-id"; one that is older than what is kept raises OutOfRange.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from boardwright.database.database import Database
from boardwright.database.errors import DatabaseUnavailable
from boardwright.database.transaction import Row, Transaction
from boardwright.rpc.errors import InvalidArgument, OutOfRange

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})")
_BATCH = 500
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """One entry. `subject` is a resource name, `kind` for example "version.created"."""

    cursor: str
    subject: str
    kind: str
    payload: dict[str, Any]
    created_us: int


class Outbox:
    """A service's event log. `append` in a write; `watch` from anywhere."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: set[asyncio.Event] = set()

    def append(
        self, tx: Transaction, subject: str, kind: str, payload: Mapping[str, Any], now_us: int | None = None
    ) -> None:
        """Add one event to the running transaction; watchers wake when it is durable."""
        transaction = "pg_current_xact_id()::text::bigint" if tx.dialect == "postgresql" else "0"
        tx.execute(
            "INSERT INTO events (transaction_id, subject, kind, payload, created_us)"
            f" VALUES ({transaction}, :subject, :kind, :payload, :now)",
            subject=subject,
            kind=kind,
            payload=json.dumps(
                payload, default=_plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False
            ),
            now=time.time_ns() // 1000 if now_us is None else now_us,
        )
        tx.after_commit(self._wake)

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def watch(self, cursor: str = "", *, subject_prefix: str = "") -> AsyncIterator[Event]:
        """Every event after `cursor`, then new ones as they commit, for ever.

        `cursor`: "" from the oldest kept, "now" only what comes, else the cursor of the last event seen.
        `subject_prefix` keeps only subjects that begin with it.

        Raises: OutOfRange CURSOR_EXPIRED, InvalidArgument FIELD_INVALID, DatabaseUnavailable at the start
        only (later outages are waited out).
        """
        if cursor == "now":
            cursor = await self._database.read(newest_cursor)
        position = parse_cursor(cursor)
        wake = asyncio.Event()
        self._waiting.add(wake)
        first = True
        try:
            while True:
                wake.clear()
                try:
                    strict = first and cursor != ""
                    events = await self._database.read(
                        partial(read, after=position, limit=_BATCH, strict=strict)
                    )
                    first = False
                except DatabaseUnavailable:
                    if first:
                        raise
                    events = []
                for event in events:
                    position = parse_cursor(event.cursor)
                    if event.subject.startswith(subject_prefix):
                        yield event
                if len(events) == _BATCH:
                    await asyncio.sleep(0)  # events of others are passed over without giving way to anybody
                    continue
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), _POLL_SECONDS)
        finally:
            self._waiting.discard(wake)


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass with slots as an object; payloads may hold them."""
    return {name: getattr(value, name) for name in value.__slots__}


def parse_cursor(cursor: str) -> tuple[int, int]:
    """(transaction, id) of a cursor; (0, 0) for "". Raises: InvalidArgument FIELD_INVALID."""
    if not cursor:
        return (0, 0)
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidArgument("FIELD_INVALID", f"{cursor[:60]!r} is not a cursor of this log", field="cursor")
    return (int(match.group(1)), int(match.group(2)))


def _settled(tx: Transaction) -> str:
    """The condition that keeps rows back whose predecessors may still commit."""
    if tx.dialect == "sqlite":
        return ""
    return " AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


def read(tx: Transaction, after: tuple[int, int], limit: int, *, strict: bool = True) -> list[Event]:
    """Up to `limit` events after a position, in order.

    Raises: OutOfRange CURSOR_EXPIRED when `strict` and events after the position have been trimmed away.
    """
    if strict:
        horizon = tx.one("SELECT horizon_transaction, horizon_id FROM event_log WHERE one = 1")
        if horizon is not None and after < (horizon["horizon_transaction"], horizon["horizon_id"]):
            raise OutOfRange(
                "CURSOR_EXPIRED",
                'events after this cursor are no longer kept; list again, then watch from "now"',
            )
    rows = tx.all(
        "SELECT transaction_id, id, subject, kind, payload, created_us FROM events"
        f" WHERE (transaction_id, id) > (:transaction, :id){_settled(tx)}"
        " ORDER BY transaction_id, id LIMIT :limit",
        transaction=after[0],
        id=after[1],
        limit=limit,
    )
    return [_event(row) for row in rows]


def newest_cursor(tx: Transaction) -> str:
    """The cursor of the newest event that may be shown; of the horizon when there is none."""
    row = tx.one(
        f"SELECT transaction_id AS t, id AS i FROM events WHERE 1 = 1{_settled(tx)}"
        " ORDER BY transaction_id DESC, id DESC LIMIT 1"
    ) or tx.one("SELECT horizon_transaction AS t, horizon_id AS i FROM event_log WHERE one = 1")
    return "0-0" if row is None else f"{row['t']}-{row['i']}"


def trim(tx: Transaction, before_us: int, limit: int = 5000) -> int:
    """Delete up to `limit` oldest events made before `before_us`; move the horizon; return the count."""
    rows = tx.all(
        "SELECT transaction_id, id, created_us FROM events ORDER BY transaction_id, id LIMIT :limit",
        limit=limit,
    )
    old = [row for row in rows if row["created_us"] < before_us]
    if not old:
        return 0
    last = old[-1]
    tx.execute(
        "UPDATE event_log SET horizon_transaction = :t, horizon_id = :i WHERE one = 1",
        t=last["transaction_id"],
        i=last["id"],
    )
    return tx.execute(
        "DELETE FROM events WHERE (transaction_id, id) <= (:t, :i)", t=last["transaction_id"], i=last["id"]
    )


def _event(row: Row) -> Event:
    return Event(
        f"{row['transaction_id']}-{row['id']}",
        row["subject"],
        row["kind"],
        json.loads(row["payload"]),
        row["created_us"],
    )
