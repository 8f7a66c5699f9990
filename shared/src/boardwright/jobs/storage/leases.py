"""Leases over one transaction: lease, heartbeat, complete, fail, give back, expire.

A step's fencing number grows with each lease. Reports name it; a report whose number is not the current one,
or whose step is not running any more, is refused with Aborted LEASE_LOST and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from boardwright.database import Row, Transaction
from boardwright.jobs.domain.dag import StepState
from boardwright.jobs.domain.job import Job, Step, StepFailure, StepOutcome, StepProgress
from boardwright.jobs.domain.leases import LeasePolicy, Offer
from boardwright.jobs.step_api import Determinism
from boardwright.jobs.storage import cache
from boardwright.jobs.storage.jobs import advance, set_failed, set_succeeded, touch
from boardwright.jobs.storage.rows import encode, read_requirements, read_step
from boardwright.rpc.errors import Aborted

_BATCH = 100


def lease_step(tx: Transaction, offer: Offer, policy: LeasePolicy, now_us: int) -> Step | None:
    """Lease the oldest ready step that fits ``offer``, or None.

    A step whose cache key another worker is computing right now waits for that one's result. Lost leases
    are collected first (``expire_leases``), so one call is enough after a worker died.
    """
    for row in _candidates(tx, now_us):
        if not offer.fits(row["kind"], read_requirements(row)):
            continue
        if not row["again"] and _is_running_elsewhere(tx, row["project"], row["cache_key"]):
            continue
        changed = tx.execute(
            "UPDATE job_steps SET state = 'running', fence = fence + 1, attempts = attempts + 1,"
            " worker = :worker, lease_expires_us = :expires_us, start_us = :now_us, progress = '{}'"
            " WHERE job = :job AND step = :step AND state = 'ready'",
            job=row["job"],
            step=row["step"],
            worker=offer.worker,
            expires_us=now_us + round(policy.duration_seconds * 1e6),
            now_us=now_us,
        )
        if changed:
            advance(tx, row["job"], now_us)
            return find_step(tx, row["job"], row["step"])
    return None


def may_lease(tx: Transaction, offer: Offer, now_us: int) -> bool:
    """Tell whether ``lease_step`` may find something for ``offer``: spares idle workers' polls a write.

    Many steps may wait for a board that nobody has at the moment; what they require is much the same.
    """
    if any_expired(tx, now_us):
        return True
    rows = tx.all(
        "SELECT DISTINCT kind, board, toolchain, accelerator, memory_bytes, time_limit_us FROM job_steps"
        " WHERE state = 'ready' AND ready_us <= :now_us",
        now_us=now_us,
    )
    return any(offer.fits(row["kind"], read_requirements(row)) for row in rows)


def any_expired(tx: Transaction, now_us: int) -> bool:
    """Tell whether a lease ran out."""
    row = tx.one(
        "SELECT 1 AS found FROM job_steps WHERE state = 'running' AND lease_expires_us < :now_us LIMIT 1",
        now_us=now_us,
    )
    return row is not None


def _candidates(tx: Transaction, now_us: int) -> Iterator[Row]:
    """Yield ready steps, oldest first, a batch at a time; locked for this transaction on PostgreSQL."""
    lock = " FOR UPDATE SKIP LOCKED" if tx.dialect == "postgresql" else ""
    after: tuple[int, str, str] = (-1, "", "")
    while True:
        rows = tx.all(
            "SELECT * FROM job_steps WHERE state = 'ready' AND ready_us <= :now_us"
            " AND (ready_us, job, step) > (:after_us, :after_job, :after_step)"
            f" ORDER BY ready_us, job, step LIMIT {_BATCH}{lock}",
            now_us=now_us,
            after_us=after[0],
            after_job=after[1],
            after_step=after[2],
        )
        yield from rows
        if len(rows) < _BATCH:
            return
        after = (rows[-1]["ready_us"], rows[-1]["job"], rows[-1]["step"])


def _is_running_elsewhere(tx: Transaction, project: str, cache_key: str) -> bool:
    row = tx.one(
        "SELECT 1 AS found FROM job_steps WHERE cache_key = :cache_key AND project = :project"
        " AND state = 'running' LIMIT 1",
        project=project,
        cache_key=cache_key,
    )
    return row is not None


def heartbeat(
    tx: Transaction, job: str, step: str, fence: int, progress: StepProgress, policy: LeasePolicy, now_us: int
) -> Step:
    """Renew a lease and note progress; returns the step as it stands, one that was cancelled unchanged.

    Raises:
        Aborted: LEASE_LOST.
    """
    held = find_step(tx, job, step)
    if held is not None and held.fence == fence and held.state is StepState.CANCELLED:
        return held
    held = _get_leased(tx, job, step, fence)
    expires_us = now_us + round(policy.duration_seconds * 1e6)
    tx.execute(
        "UPDATE job_steps SET lease_expires_us = :expires_us, progress = :progress"
        " WHERE job = :job AND step = :step",
        job=job,
        step=step,
        expires_us=expires_us,
        progress=encode({"done": progress.done, "total": progress.total, "what": progress.what}),
    )
    if progress != held.progress:
        touch(tx, job, now_us)
    return replace(held, lease_expires_us=expires_us, progress=progress)


def complete_step(
    tx: Transaction, job: str, step: str, fence: int, outcome: StepOutcome, now_us: int
) -> list[Job]:
    """Record a step's outcome and its cache entry; returns every job that this moved, the own one first.

    Ready steps of other jobs with the same cache key succeed with it. Completing twice with the same
    fencing number (the answer was lost) changes nothing.

    Raises:
        Aborted: LEASE_LOST.
    """
    current = find_step(tx, job, step)
    if current is not None and current.fence == fence and current.state is StepState.SUCCEEDED:
        return []
    held = _get_leased(tx, job, step, fence)
    project = held.project
    set_succeeded(tx, job, step, outcome, now_us, cached=False)
    cache.remember(tx, project, held.cache_key, held.spec.kind, outcome, now_us)
    moved = [job]
    for row in _same_key(tx, project, held.cache_key):
        set_succeeded(tx, row["job"], row["step"], outcome, now_us, cached=True)
        moved.append(row["job"])
    return [advance(tx, name, now_us) for name in dict.fromkeys(moved)]


def fail_step(
    tx: Transaction,
    job: str,
    step: str,
    fence: int,
    failure: StepFailure,
    policy: LeasePolicy,
    now_us: int,
) -> list[Job]:
    """Record a failed run: final and remembered if deterministic, else tried again up to the policy's bound.

    Returns every job that this moved. Failing twice with the same fencing number changes nothing.

    Raises:
        Aborted: LEASE_LOST.
    """
    current = find_step(tx, job, step)
    if (
        current is not None
        and current.fence == fence
        and current.state in (StepState.FAILED, StepState.READY)
    ):
        return []
    held = _get_leased(tx, job, step, fence)
    if not failure.deterministic:
        return [_try_again(tx, held, failure, policy, now_us)]
    project = held.project
    set_failed(tx, job, step, failure, now_us)
    moved = [job]
    if held.spec.determinism is not Determinism.OBSERVED:
        cache.remember(tx, project, held.cache_key, held.spec.kind, failure, now_us)
        for row in _same_key(tx, project, held.cache_key):
            set_failed(tx, row["job"], row["step"], failure, now_us, cached=True)
            moved.append(row["job"])
    return [advance(tx, name, now_us) for name in dict.fromkeys(moved)]


def give_back(tx: Transaction, job: str, step: str, fence: int, now_us: int) -> Job:
    """Return a lease unused (the worker stops): the step is ready at once and the attempt does not count.

    Raises:
        Aborted: LEASE_LOST.
    """
    _get_leased(tx, job, step, fence)
    tx.execute(
        "UPDATE job_steps SET state = 'ready', attempts = attempts - 1, lease_expires_us = 0,"
        " ready_us = :now_us WHERE job = :job AND step = :step",
        job=job,
        step=step,
        now_us=now_us,
    )
    return advance(tx, job, now_us)


def expire_leases(tx: Transaction, policy: LeasePolicy, now_us: int) -> list[Job]:
    """Make steps whose lease ran out ready again (or failed, after the last attempt); returns their jobs."""
    rows = tx.all(
        "SELECT * FROM job_steps WHERE state = 'running' AND lease_expires_us < :now_us LIMIT :limit",
        now_us=now_us,
        limit=_BATCH,
    )
    jobs = []
    for held in map(read_step, rows):
        failure = StepFailure(
            "LEASE_EXPIRED",
            f"worker {held.worker!r} stopped answering while it ran {held.spec.kind}; "
            "look at its log and whether its machine is up.",
            deterministic=False,
        )
        jobs.append(_try_again(tx, held, failure, policy, now_us))
    return jobs


def _try_again(tx: Transaction, held: Step, failure: StepFailure, policy: LeasePolicy, now_us: int) -> Job:
    job, step = held.job, held.spec.step
    if held.attempts >= policy.max_attempts:
        told = f"{failure.message} (Tried {held.attempts} times; retry the job to try again.)"
        set_failed(tx, job, step, StepFailure(failure.reason, told, False), now_us)
        return advance(tx, job, now_us)
    # A lost worker's step must not wait; one that failed by itself does.
    waits = failure.reason != "LEASE_EXPIRED"
    delay_us = round(policy.backoff_seconds(held.attempts) * 1e6) if waits else 0
    tx.execute(
        "UPDATE job_steps SET state = 'ready', ready_us = :ready_us, lease_expires_us = 0, failure = ''"
        " WHERE job = :job AND step = :step",
        job=job,
        step=step,
        ready_us=now_us + delay_us,
    )
    return advance(tx, job, now_us)


def find_step(tx: Transaction, job: str, step: str) -> Step | None:
    """Return one step as it stands, or None."""
    row = tx.one("SELECT * FROM job_steps WHERE job = :job AND step = :step", job=job, step=step)
    return None if row is None else read_step(row)


def _get_leased(tx: Transaction, job: str, step: str, fence: int) -> Step:
    held = find_step(tx, job, step)
    if held is None or held.state is not StepState.RUNNING or held.fence != fence:
        now = "gone" if held is None else f"{held.state.value} under lease {held.fence}"
        raise Aborted(
            "LEASE_LOST",
            f"lease {fence} of step {step!r} of {job!r} is over (the step is {now}); drop the work.",
            job=job,
            step=step,
        )
    return held


def _same_key(tx: Transaction, project: str, cache_key: str) -> list[Row]:
    return tx.all(
        "SELECT job, step FROM job_steps WHERE cache_key = :cache_key AND project = :project"
        " AND state = 'ready' AND again = 0",
        project=project,
        cache_key=cache_key,
    )
