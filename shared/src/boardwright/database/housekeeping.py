"""Old events and answered requests go, so that a service's database does not grow for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from boardwright.database import outbox, requests
from boardwright.database.database import Database
from boardwright.database.errors import DatabaseError
from boardwright.database.transaction import Transaction

_log = logging.getLogger(__name__)

EVENTS_KEPT_SECONDS = 30 * 24 * 3600
_PERIOD_SECONDS = 600.0
_PAUSE_SECONDS = 0.05


async def keep_house(database: Database) -> None:
    """Forget old events and answered requests, a little at a time, until cancelled.

    A service runs this in the background. What is deleted at once is bounded, so that it holds up nobody's
    write for long; an outage of the database is logged and waited out.
    """
    while True:
        now_us = time.time_ns() // 1000
        try:
            while await database.write(partial(forget_old, now_us=now_us)):
                await asyncio.sleep(_PAUSE_SECONDS)
        except DatabaseError as error:
            _log.warning("housekeeping waits: %s", error)
        await asyncio.sleep(_PERIOD_SECONDS)


def forget_old(tx: Transaction, now_us: int) -> int:
    """Delete some of the events (kept 30 days) and answers (7 days) that are too old; return how many."""
    events = outbox.trim(tx, now_us - EVENTS_KEPT_SECONDS * 1_000_000)
    return events + requests.forget(tx, now_us - requests.KEPT_SECONDS * 1_000_000)
