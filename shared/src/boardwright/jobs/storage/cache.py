"""From a cache key to what the step made, or to the deterministic failure that is remembered.

Each project has its own cache: what another project's step made is not visible in this one, and to know a
digest never grants a read.
"""

from __future__ import annotations

import json

from boardwright.database import Transaction
from boardwright.jobs.domain.job import StepFailure, StepOutcome
from boardwright.jobs.storage.rows import encode, read_failure


def look_up(tx: Transaction, project: str, cache_key: str) -> StepOutcome | StepFailure | None:
    """Return what is known under ``cache_key``."""
    row = tx.one(
        "SELECT outcome, failure FROM step_cache WHERE project = :project AND cache_key = :cache_key",
        project=project,
        cache_key=cache_key,
    )
    if row is None:
        return None
    if row["outcome"]:
        return StepOutcome.from_json(json.loads(row["outcome"]))
    return read_failure(row["failure"])


def remember(
    tx: Transaction, project: str, cache_key: str, kind: str, known: StepOutcome | StepFailure, now_us: int
) -> None:
    """Keep what a step made (newest wins), or how it failed (an outcome is never replaced by a failure)."""
    if isinstance(known, StepOutcome):
        tx.execute(
            "INSERT INTO step_cache (project, cache_key, kind, outcome, failure, create_us)"
            " VALUES (:project, :cache_key, :kind, :outcome, '', :now_us)"
            " ON CONFLICT (project, cache_key) DO UPDATE SET outcome = excluded.outcome, failure = '',"
            " create_us = excluded.create_us",
            project=project,
            cache_key=cache_key,
            kind=kind,
            outcome=encode(known.to_json()),
            now_us=now_us,
        )
        return
    tx.execute(
        "INSERT INTO step_cache (project, cache_key, kind, outcome, failure, create_us)"
        " VALUES (:project, :cache_key, :kind, '', :failure, :now_us)"
        " ON CONFLICT (project, cache_key) DO NOTHING",
        project=project,
        cache_key=cache_key,
        kind=kind,
        failure=encode(known.to_json()),
        now_us=now_us,
    )


def forget_failure(tx: Transaction, project: str, cache_key: str) -> bool:
    """Forget a remembered failure; returns whether there was one."""
    return (
        tx.execute(
            "DELETE FROM step_cache WHERE project = :project AND cache_key = :cache_key AND failure <> ''",
            project=project,
            cache_key=cache_key,
        )
        > 0
    )
