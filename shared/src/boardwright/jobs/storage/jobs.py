"""Jobs over one transaction: create, advance through the DAG, cancel, retry, finish.

Every function takes the time as ``now_us`` and is safe to run again in a new transaction. Errors are
``boardwright.rpc.errors``: the service lets them pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boardwright.database import Row, Transaction
from boardwright.jobs.domain.cache_key import cache_key
from boardwright.jobs.domain.dag import (
    ENDED_JOBS,
    ENDED_STEPS,
    InvalidDag,
    JobState,
    StepSpec,
    StepState,
    job_state,
    newly_ready,
    order,
    resolve_inputs,
    to_skip,
)
from boardwright.jobs.domain.job import Job, NewJob, Step, StepFailure, StepOutcome
from boardwright.jobs.storage import cache
from boardwright.jobs.storage.rows import encode, encode_blobs, read_job, read_step, step_row
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument, NotFound

_STEP_COLUMNS = (
    "job, project, step, position, kind, version, determinism, parameters, inputs, environment, board,"
    " toolchain, accelerator, memory_bytes, time_limit_us, seed, again, state"
)
# What a message tells of a row at any length.
_JOB_TEXTS = ("spec", "results", "failure")
_STEP_TEXTS = ("parameters", "resolved", "progress", "outcome", "failure")
_STEP_PARAMETERS = ", ".join(f":{column.strip()}" for column in _STEP_COLUMNS.split(","))


def create_job(tx: Transaction, new: NewJob, now_us: int) -> Job:
    """Store a job and lead it as far as the cache carries it; returns it.

    Raises:
        InvalidArgument: the steps are no DAG (the reason is the one of ``domain.dag.order``).
    """
    try:
        steps = order(new.steps)
    except InvalidDag as error:
        raise InvalidArgument(error.reason, error.message) from error
    tx.execute(
        "INSERT INTO jobs (name, project, principal, spec, title, state, trace, create_us, update_us)"
        " VALUES (:name, :project, :principal, :spec, :title, 'queued', :trace, :now_us, :now_us)",
        name=new.name,
        project=new.project,
        principal=new.principal,
        spec=encode(dict(new.spec)),
        title=new.title,
        trace=new.trace,
        now_us=now_us,
    )
    tx.execute_many(
        f"INSERT INTO job_steps ({_STEP_COLUMNS}) VALUES ({_STEP_PARAMETERS})",
        [step_row(new.name, new.project, position, spec) for position, spec in enumerate(steps)],
    )
    return advance(tx, new.name, now_us, forget_failures=new.retry)


def find_job(tx: Transaction, name: str) -> Job | None:
    """Return the job, or None."""
    row = tx.one("SELECT * FROM jobs WHERE name = :name", name=name)
    return None if row is None else read_job(row, _step_rows(tx, name))


def get_job(tx: Transaction, name: str) -> Job:
    """Return the job.

    Raises:
        NotFound: JOB_NOT_FOUND.
    """
    job = find_job(tx, name)
    if job is None:
        raise NotFound("JOB_NOT_FOUND", f"there is no job {name!r}.", job=name)
    return job


def read_jobs(tx: Transaction, rows: Iterable[Row], most_bytes: int | None = None) -> list[Job]:
    """Return the jobs of rows of ``SELECT * FROM jobs …``, their steps included.

    With ``most_bytes`` only the first of them, at least one, whose messages hold about that at most.
    """
    read: list[Job] = []
    held = 0
    for row in rows:
        steps = _step_rows(tx, row["name"])
        held += _bytes_of(row, _JOB_TEXTS) + sum(_bytes_of(step, _STEP_TEXTS) for step in steps)
        if read and most_bytes is not None and held > most_bytes:
            break
        read.append(read_job(row, steps))
    return read


def _bytes_of(row: Row, columns: Iterable[str]) -> int:
    return sum(len(row[column].encode()) for column in columns)


def look(tx: Transaction, name: str, seen: int) -> tuple[Job | None, bool]:
    """Return the job if it moved on since the revision ``seen`` (0: in any case), and whether it has ended.

    Reads the steps only where it moved on: every watch looks whenever any job changes.

    Raises:
        NotFound: JOB_NOT_FOUND.
    """
    row = tx.one("SELECT revision, state FROM jobs WHERE name = :name", name=name)
    if row is not None and row["revision"] <= seen:
        return None, JobState(row["state"]) in ENDED_JOBS
    job = get_job(tx, name)
    return job, job.ended


def advance(tx: Transaction, name: str, now_us: int, *, forget_failures: bool = False) -> Job:
    """Lead the job as far as its finished steps and the cache allow; count one revision; return it."""
    project = _project_of(tx, name)
    while True:
        steps = {row["step"]: read_step(row) for row in _step_rows(tx, name)}
        specs = [step.spec for step in steps.values()]
        states = {step: held.state for step, held in steps.items()}
        made = {step: held.outcome.outputs for step, held in steps.items() if held.outcome is not None}
        moved = False
        for spec in newly_ready(specs, states):
            _make_ready(tx, name, project, spec, made, now_us, forget_failures)
            moved = True
        for step in to_skip(specs, states):
            set_ended(tx, name, step, StepState.SKIPPED, now_us)
            moved = True
        if not moved:
            break
    _settle(tx, name, steps, now_us)
    return get_job(tx, name)


def _make_ready(
    tx: Transaction,
    name: str,
    project: str,
    spec: StepSpec,
    made: Mapping[str, Mapping[str, Any]],
    now_us: int,
    forget_failures: bool,
) -> None:
    try:
        inputs = resolve_inputs(spec, made)
    except InvalidDag as error:
        set_failed(tx, name, spec.step, StepFailure(error.reason, error.message), now_us)
        return
    key = cache_key(
        kind=spec.kind,
        version=spec.version,
        determinism=spec.determinism,
        parameters=spec.parameters,
        inputs={given: blob.digest for given, blob in inputs.items()},
        environment=spec.environment,
        seed=spec.seed,
    )
    tx.execute(
        "UPDATE job_steps SET state = 'ready', cache_key = :cache_key, resolved = :resolved,"
        " ready_us = :now_us WHERE job = :job AND step = :step",
        job=name,
        step=spec.step,
        cache_key=key,
        resolved=encode_blobs(inputs),
        now_us=now_us,
    )
    if forget_failures:
        cache.forget_failure(tx, project, key)
    known = None if spec.again else cache.look_up(tx, project, key)
    if isinstance(known, StepOutcome):
        set_succeeded(tx, name, spec.step, known, now_us, cached=True)
    elif known is not None:
        set_failed(tx, name, spec.step, known, now_us, cached=True)


def _settle(tx: Transaction, name: str, steps: Mapping[str, Step], now_us: int) -> None:
    """Write the job's own state after its steps."""
    state = job_state({step: held.state for step, held in steps.items()})
    failures = [held.failure for held in steps.values() if held.failure is not None]
    ended = state in (JobState.FAILED, JobState.CANCELLED)
    tx.execute(
        "UPDATE jobs SET state = :state, failure = :failure, finish_us = :finish_us, update_us = :now_us,"
        " revision = revision + 1 WHERE name = :name AND state NOT IN ('succeeded', 'failed', 'cancelled')",
        name=name,
        state=state.value,
        failure=encode(failures[0].to_json()) if state is JobState.FAILED and failures else "",
        finish_us=now_us if ended else 0,
        now_us=now_us,
    )


def set_succeeded(
    tx: Transaction, job: str, step: str, outcome: StepOutcome, now_us: int, *, cached: bool
) -> None:
    """Mark one step as succeeded; the caller advances the job."""
    tx.execute(
        "UPDATE job_steps SET state = 'succeeded', outcome = :outcome, failure = '', cached = :cached,"
        " finish_us = :now_us, lease_expires_us = 0 WHERE job = :job AND step = :step",
        job=job,
        step=step,
        outcome=encode(outcome.to_json()),
        cached=int(cached),
        now_us=now_us,
    )


def set_failed(
    tx: Transaction,
    job: str,
    step: str,
    failure: StepFailure,
    now_us: int,
    *,
    cached: bool = False,
) -> None:
    """Mark one step as failed; the caller advances the job."""
    tx.execute(
        "UPDATE job_steps SET state = 'failed', failure = :failure, cached = :cached,"
        " finish_us = :now_us, lease_expires_us = 0 WHERE job = :job AND step = :step",
        job=job,
        step=step,
        failure=encode(failure.to_json()),
        cached=int(cached),
        now_us=now_us,
    )


def set_ended(tx: Transaction, job: str, step: str, state: StepState, now_us: int) -> None:
    """Mark one step as skipped or cancelled. A running one's worker is told by its next heartbeat."""
    tx.execute(
        "UPDATE job_steps SET state = :state, finish_us = :now_us, lease_expires_us = 0"
        " WHERE job = :job AND step = :step",
        job=job,
        step=step,
        state=state.value,
        now_us=now_us,
    )


def cancel_job(tx: Transaction, name: str, now_us: int, reason: str = "") -> Job:
    """Cancel what has not ended; a job that has ended stays as it is. ``reason`` is for people.

    Raises:
        NotFound: JOB_NOT_FOUND.
    """
    job = get_job(tx, name)
    if job.ended:
        return job
    for step in job.steps:
        if step.state not in ENDED_STEPS:
            set_ended(tx, name, step.spec.step, StepState.CANCELLED, now_us)
    tx.execute(
        "UPDATE jobs SET state = 'cancelled', failure = :failure, finish_us = :now_us, update_us = :now_us,"
        " revision = revision + 1 WHERE name = :name",
        name=name,
        failure=encode(StepFailure("CANCELLED", reason, False).to_json()) if reason else "",
        now_us=now_us,
    )
    return get_job(tx, name)


def retry_job(tx: Transaction, name: str, now_us: int) -> Job:
    """Run again what did not succeed, and forget its remembered failures; succeeded steps stay.

    A job that succeeded stays as it is.

    Raises:
        NotFound: JOB_NOT_FOUND.
        FailedPrecondition: JOB_NOT_ENDED.
    """
    job = get_job(tx, name)
    if job.state is JobState.SUCCEEDED:
        return job
    if not job.ended:
        raise FailedPrecondition(
            "JOB_NOT_ENDED",
            f"job {name!r} is {job.state.value}; wait for its end or cancel it, then retry.",
            job=name,
        )
    for step in job.steps:
        if step.cache_key:
            cache.forget_failure(tx, job.project, step.cache_key)
    tx.execute(
        "UPDATE job_steps SET state = 'waiting', failure = '', cached = 0, attempts = 0, progress = '{}',"
        " start_us = 0, finish_us = 0 WHERE job = :job AND state IN ('failed', 'skipped', 'cancelled')",
        job=name,
    )
    tx.execute(
        "UPDATE jobs SET state = 'queued', failure = '', finish_us = 0, finish_attempts = 0,"
        " finish_after_us = 0 WHERE name = :name",
        name=name,
    )
    return advance(tx, name, now_us, forget_failures=True)


def jobs_to_finish(tx: Transaction, now_us: int, limit: int = 20) -> list[Job]:
    """Return jobs whose steps all succeeded and whose owner must record it now, oldest first."""
    rows = tx.all(
        "SELECT * FROM jobs WHERE state = 'finishing' AND finish_after_us <= :now_us"
        " ORDER BY update_us LIMIT :limit",
        now_us=now_us,
        limit=limit,
    )
    return read_jobs(tx, rows)


def finish_job(tx: Transaction, name: str, results: Sequence[str] | StepFailure, now_us: int) -> Job | None:
    """Close a finishing job with its owner's results or failure; None if it is not finishing any more."""
    failed = isinstance(results, StepFailure)
    changed = tx.execute(
        "UPDATE jobs SET state = :state, results = :results, failure = :failure, finish_us = :now_us,"
        " update_us = :now_us, revision = revision + 1 WHERE name = :name AND state = 'finishing'",
        name=name,
        state="failed" if failed else "succeeded",
        results="[]" if isinstance(results, StepFailure) else encode(list(results)),
        failure=encode(results.to_json()) if isinstance(results, StepFailure) else "",
        now_us=now_us,
    )
    return get_job(tx, name) if changed else None


def announce(tx: Transaction, job: Job) -> bool:
    """Note that the job's present state is being recorded; returns False where it already was."""
    return bool(
        tx.execute(
            "UPDATE jobs SET announced = :state WHERE name = :name AND announced <> :state",
            name=job.name,
            state=job.state.value,
        )
    )


def finish_later(tx: Transaction, name: str, after_us: int) -> None:
    """Try again to finish the job at ``after_us`` (the registry was away)."""
    tx.execute(
        "UPDATE jobs SET finish_attempts = finish_attempts + 1, finish_after_us = :after_us"
        " WHERE name = :name",
        name=name,
        after_us=after_us,
    )


def finish_attempts(tx: Transaction, name: str) -> int:
    """Return how often finishing this job was put off."""
    row = tx.one("SELECT finish_attempts FROM jobs WHERE name = :name", name=name)
    return 0 if row is None else int(row["finish_attempts"])


def _project_of(tx: Transaction, name: str) -> str:
    row = tx.one("SELECT project FROM jobs WHERE name = :name", name=name)
    return "" if row is None else str(row["project"])


def _step_rows(tx: Transaction, name: str) -> list[Row]:
    return tx.all("SELECT * FROM job_steps WHERE job = :job ORDER BY position", job=name)


def touch(tx: Transaction, name: str, now_us: int) -> None:
    """Count one revision without any other change (progress)."""
    tx.execute(
        "UPDATE jobs SET revision = revision + 1, update_us = :now_us WHERE name = :name",
        name=name,
        now_us=now_us,
    )
