"""The end of each step's log: appended with heartbeats, read on demand."""

from __future__ import annotations

from boardwright.database import Transaction

MAX_LOG_CHARACTERS = 256 << 10


def append_log(tx: Transaction, job: str, step: str, text: str) -> None:
    """Add ``text``; only the last 256 Ki characters are kept."""
    if not text:
        return
    kept, truncated = read_log(tx, job, step)
    whole = kept + text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    truncated = truncated or len(whole) > MAX_LOG_CHARACTERS
    tx.execute(
        "INSERT INTO step_logs (job, step, log, truncated) VALUES (:job, :step, :log, :truncated)"
        " ON CONFLICT (job, step) DO UPDATE SET log = excluded.log, truncated = excluded.truncated",
        job=job,
        step=step,
        log=whole[-MAX_LOG_CHARACTERS:],
        truncated=int(truncated),
    )


def read_log(tx: Transaction, job: str, step: str) -> tuple[str, bool]:
    """Return what is kept of the log, and whether its beginning is gone."""
    row = tx.one("SELECT log, truncated FROM step_logs WHERE job = :job AND step = :step", job=job, step=step)
    return ("", False) if row is None else (row["log"], bool(row["truncated"]))


def read_log_of_key(tx: Transaction, project: str, cache_key: str, state: str) -> tuple[str, bool]:
    """Return the log of the newest step that really ran under this cache key and ended in ``state``.

    Where that step's job is not kept any more, all of the log is gone: ("", True).
    """
    row = tx.one(
        "SELECT l.log, l.truncated FROM job_steps s"
        " LEFT JOIN step_logs l ON l.job = s.job AND l.step = s.step"
        " WHERE s.cache_key = :cache_key AND s.project = :project AND s.cached = 0 AND s.state = :state"
        " ORDER BY s.start_us DESC LIMIT 1",
        cache_key=cache_key,
        project=project,
        state=state,
    )
    return ("", True) if row is None else (row["log"] or "", bool(row["truncated"]))
