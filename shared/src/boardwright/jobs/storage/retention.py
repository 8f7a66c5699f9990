"""Jobs that ended long ago go, with their steps and logs, so that a service's database stays bounded.

What outlives them: the cache (the same work again is still taken from it), the blobs that it holds, the
records that lineage leads to, and what the jobs made. What goes with them: their logs, and what a report
tells of the steps; the same recipe again brings that back from the cache. What has not ended never goes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from boardwright.database import Transaction
from boardwright.database.requests import KEPT_SECONDS

VARIABLE = "BOARDWRIGHT_JOBS_KEPT_DAYS"
DEFAULT_DAYS = 180

_LEAST_DAYS = KEPT_SECONDS // (24 * 3600)
_DAY_US = 24 * 3600 * 1_000_000
_LIMIT = 50
_TABLES = {"step_logs": "job", "job_steps": "job", "jobs": "name"}


def kept_days() -> int:
    """Read how many days an ended job is kept; 0 means for ever.

    Raises:
        ValueError: it is neither 0 nor at least as long as a repeated ``request_id`` finds its job.
    """
    text = os.environ.get(VARIABLE) or str(DEFAULT_DAYS)
    if not text.isdecimal() or 0 < int(text) < _LEAST_DAYS:
        raise ValueError(
            f"{VARIABLE} is {text!r}; give days, at least {_LEAST_DAYS}, or 0 to keep jobs for ever"
        )
    return int(text)


def forgetting(days: int) -> list[Callable[[Transaction, int], int]]:
    """Return what ``keep_house`` runs besides its own, for jobs that are kept ``days`` (0: nothing)."""
    return [partial(_forget, kept_us=days * _DAY_US)] if days else []


def _forget(tx: Transaction, now_us: int, *, kept_us: int) -> int:
    return forget_ended(tx, max(0, now_us - kept_us))


def forget_ended(tx: Transaction, before_us: int, limit: int = _LIMIT) -> int:
    """Delete up to ``limit`` jobs that ended before ``before_us``, oldest first; return how many went."""
    rows = tx.all(
        "SELECT name FROM jobs WHERE finish_us > 0 AND finish_us < :before_us"
        " AND state IN ('succeeded', 'failed', 'cancelled') ORDER BY finish_us LIMIT :limit",
        before_us=before_us,
        limit=limit,
    )
    for row in rows:
        for table, column in _TABLES.items():
            tx.execute(f"DELETE FROM {table} WHERE {column} = :name", name=row["name"])
    return len(rows)
