"""Finishing jobs: once all steps have succeeded, the owner records what they made, each job by itself.

An owner may wait for another service; no other job waits with it. What is away is asked again with backoff,
also after a restart, since a job stays ``finishing`` until its owner has answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from boardwright.database import Database, DatabaseUnavailable, Transaction
from boardwright.jobs.domain.job import Job, StepFailure
from boardwright.jobs.ports import JobOwner
from boardwright.jobs.storage import jobs
from boardwright.rpc.errors import BoardwrightError, DeadlineExceeded, Unavailable
from boardwright.telemetry import span

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 0.5
_MAX_DOUBLINGS = 7  # to about a minute

Move = Callable[[Callable[[Transaction], Sequence[Job]]], Awaitable[None]]


class Finisher:
    """Finishes jobs side by side. ``move`` runs a change of jobs and announces it."""

    def __init__(self, database: Database, owner: JobOwner, move: Move, clock_us: Callable[[], int]) -> None:
        self._database = database
        self._owner = owner
        self._move = move
        self._clock_us = clock_us
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start_due(self) -> list[asyncio.Task[None]]:
        """Start on every job that is due and not in hand; returns what is in hand now."""
        now = self._clock_us()
        for job in await self._database.read(lambda tx: jobs.jobs_to_finish(tx, now)):
            if job.name not in self._tasks:
                task = asyncio.create_task(self._finish(job))
                self._tasks[job.name] = task
                task.add_done_callback(lambda done, name=job.name: self._tasks.pop(name, None))  # type: ignore[misc]
        return list(self._tasks.values())

    async def stop(self) -> None:
        """Cancel what is in hand; it is done again after the next start."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _finish(self, job: Job) -> None:
        results: Sequence[str] | StepFailure
        try:
            with span("finish job", traceparent=job.trace, job=job.name):
                results = await self._owner.finish(job)
        except (Unavailable, DeadlineExceeded, DatabaseUnavailable) as error:
            await self._put_off(job, error)
            return
        except BoardwrightError as error:
            if error.reason == "TOO_MANY_CALLS":  # by the job's creator, who is busy elsewhere at this moment
                await self._put_off(job, error)
                return
            results = StepFailure(error.reason, error.message)
        except Exception:
            _log.exception("job %s could not be finished", job.name)
            told = "recording the job's results failed; see the service's log."
            results = StepFailure("FINISH_FAILED", told)

        def close(tx: Transaction) -> list[Job]:
            closed = jobs.finish_job(tx, job.name, results, self._clock_us())
            return [] if closed is None else [closed]

        try:
            await self._move(close)
        except DatabaseUnavailable as error:
            _log.warning("job %s is finished later: %s", job.name, error)

    async def _put_off(self, job: Job, error: Exception) -> None:
        _log.warning("job %s is finished later: %s", job.name, error)

        def put_off(tx: Transaction) -> None:
            doublings = min(jobs.finish_attempts(tx, job.name), _MAX_DOUBLINGS)
            delay_us = round(_FIRST_BACKOFF_SECONDS * 2**doublings * 1e6)
            jobs.finish_later(tx, job.name, self._clock_us() + delay_us)

        try:
            await self._database.write(put_off)
        except DatabaseUnavailable:
            _log.warning("the database is away as well; job %s is tried again", job.name)
