"""Old events and answered requests go, so that a service's database does not grow for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from boardwright.database import outbox, requests
from boardwright.database.database import Database
from boardwright.database.errors import DatabaseError
from boardwright.database.transaction import Transaction

_log = logging.getLogger(__name__)

EVENTS_KEPT_SECONDS = 30 * 24 * 3600
_PERIOD_SECONDS = 600.0
_PAUSE_SECONDS = 0.05

Forget = Callable[[Transaction, int], int]


async def keep_house(database: Database, *more: Forget) -> None:
    """Forget old events, answered requests and what ``more`` deletes, a little at a time, until cancelled.

    Each of ``more`` takes a transaction and the time (microseconds), deletes a bounded number of rows by an
    index, and returns how many, 0 when nothing is old any more.

    A service runs this in the background. What is deleted at once is bounded, so that it holds up nobody's
    write for long; an outage of the database is logged and waited out.
    """
    while True:
        now_us = time.time_ns() // 1000
        try:
            for forget in (forget_old, *more):
                while await database.write(partial(_run, forget, now_us)):
                    await asyncio.sleep(_PAUSE_SECONDS)
        except DatabaseError as error:
            _log.warning("housekeeping waits: %s", error)
        await asyncio.sleep(_PERIOD_SECONDS)


def _run(forget: Forget, now_us: int, tx: Transaction) -> int:
    return forget(tx, now_us)


def forget_old(tx: Transaction, now_us: int) -> int:
    """Delete some of the events (kept 30 days) and answers (7 days) that are too old; return how many."""
    events = outbox.trim(tx, now_us - EVENTS_KEPT_SECONDS * 1_000_000)
    return events + requests.forget(tx, now_us - requests.KEPT_SECONDS * 1_000_000)
