"""Jobs of one service: transactions, notifications, long polls, and the loop that keeps things moving.

``JobService`` is what the compiler's and the builder's servicers call. One per process; on PostgreSQL several
processes may serve the same jobs: waiting calls look again every second besides being notified.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from boardwright.database import Database, DatabaseUnavailable, Transaction
from boardwright.jobs.domain.dag import StepState
from boardwright.jobs.domain.job import Job, NewJob, Step, StepFailure, StepOutcome, StepProgress
from boardwright.jobs.domain.leases import LeasePolicy, Offer, waiting_reason
from boardwright.jobs.finishing import Finisher
from boardwright.jobs.ports import JobOwner, OutputKeeper
from boardwright.jobs.storage import jobs, leases, logs
from boardwright.rpc.errors import BoardwrightError, NotFound
from boardwright.telemetry import counter, current_traceparent

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_ended = counter("boardwright_steps_total", "Runs of steps by kind and end.", ("kind", "end"))

_LOOK_AGAIN_SECONDS = 1.0
_OFFER_SECONDS = 60.0
_UPKEEP_SECONDS = 2.0


def now_us() -> int:
    """Return the time in microseconds since the epoch."""
    return time.time_ns() // 1000


class Changed:
    """Wakes everyone who waits whenever something was committed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all present waiters."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    def ticket(self) -> asyncio.Event:
        """Return the event that the next ``notify`` sets; take it before looking."""
        return self._event


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return


class JobService:
    """Jobs, their leases and their watches, over one database and for one owner."""

    def __init__(
        self,
        database: Database,
        owner: JobOwner,
        outputs: OutputKeeper,
        *,
        policy: LeasePolicy | None = None,
        clock_us: Callable[[], int] = now_us,
    ) -> None:
        self.policy = policy or LeasePolicy()
        self._database = database
        self._owner = owner
        self._outputs = outputs
        self._clock_us = clock_us
        self._changed = Changed()
        self._moved = Changed()
        self._finisher = Finisher(database, owner, self._move, clock_us)
        self._stopping = False
        self._offers: dict[str, tuple[Offer, float]] = {}

    # Jobs

    def create_in(self, tx: Transaction, new: NewJob) -> Job:
        """Create a job inside the caller's transaction (beside its ``request_id``).

        Transactions run in other threads: set ``new.trace`` (``current_traceparent()``) before.

        Raises:
            InvalidArgument: the steps are no DAG.
        """
        return self._announce(tx, [jobs.create_job(tx, new, self._clock_us())])[0]

    async def create(self, new: NewJob) -> Job:
        """Create a job in a transaction of its own; see ``create_in``."""
        traced = new if new.trace else replace(new, trace=current_traceparent())
        return await self._database.write(lambda tx: self.create_in(tx, traced))

    async def get(self, name: str) -> Job:
        """Return the job. Raises: NotFound JOB_NOT_FOUND."""
        return await self._database.read(lambda tx: jobs.get_job(tx, name))

    def cancel_in(self, tx: Transaction, name: str, reason: str = "") -> Job:
        """Cancel the job inside the caller's transaction; running steps end at their next heartbeat.

        ``reason`` is for people: it stays on the job as its failure's message.

        Raises:
            NotFound: JOB_NOT_FOUND.
        """
        return self._announce(tx, [jobs.cancel_job(tx, name, self._clock_us(), reason)])[0]

    async def cancel(self, name: str, reason: str = "") -> Job:
        """Cancel in a transaction of its own; see ``cancel_in``."""
        return await self._database.write(lambda tx: self.cancel_in(tx, name, reason))

    def retry_in(self, tx: Transaction, name: str) -> Job:
        """Run again what did not succeed, inside the caller's transaction.

        Raises:
            NotFound: JOB_NOT_FOUND.
            FailedPrecondition: JOB_NOT_ENDED.
        """
        return self._announce(tx, [jobs.retry_job(tx, name, self._clock_us())])[0]

    async def retry(self, name: str) -> Job:
        """Retry in a transaction of its own; see ``retry_in``."""
        return await self._database.write(lambda tx: self.retry_in(tx, name))

    async def watch(self, name: str, after_revision: int = 0) -> AsyncIterator[Job]:
        """Yield the job as it stands, then again after each change, until it has ended.

        Revisions grow strictly; changes between two yields are folded into one. Resume with the last
        revision seen: nothing that still matters is missed, the last state included.

        Raises:
            NotFound: JOB_NOT_FOUND.
        """
        seen = after_revision
        while True:
            ticket = self._changed.ticket()
            moved, ended = await self._database.read(partial(jobs.look, name=name, seen=seen))
            if moved is not None:
                seen = moved.revision
                yield moved
            if ended:
                return
            if moved is None:
                await _wait(ticket, _LOOK_AGAIN_SECONDS)

    # Leases

    async def lease(
        self, offer: Offer, wait_seconds: float = 0.0, wanted: Callable[[], bool] = lambda: True
    ) -> tuple[Step, Job] | None:
        """Lease a step for ``offer``, waiting up to ``wait_seconds`` for one; None if none came.

        ``wanted`` is asked before each look: once False, the wait ends (after ``wake``, at once).
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        self._forget_offers()
        self._offers[offer.worker] = (offer, deadline)

        def take(tx: Transaction) -> tuple[Step, Job] | None:
            now = self._clock_us()
            self._announce(tx, leases.expire_leases(tx, self.policy, now))
            step = leases.lease_step(tx, offer, self.policy, now)
            if step is None:
                return None
            return step, self._announce(tx, [jobs.get_job(tx, step.job)])[0]

        while wanted() and not self._stopping:
            ticket = self._moved.ticket()
            if await self._database.read(lambda tx: leases.may_lease(tx, offer, self._clock_us())):
                taken = await self._database.write(take, key="leases")
                if taken is not None:
                    return taken
            left = deadline - loop.time()
            if left <= 0:
                break
            await _wait(ticket, min(left, _LOOK_AGAIN_SECONDS))
        return None

    def waiting_reason(self, step: Step) -> str:
        """Return why a ready step waits, as far as this process knows the workers; "" for other steps."""
        if step.state is not StepState.READY:
            return ""
        self._forget_offers()
        offers = [offer for offer, _ in self._offers.values()]
        return waiting_reason(offers, step.spec.kind, step.spec.requires)

    def _forget_offers(self) -> None:
        since = time.monotonic() - _OFFER_SECONDS
        self._offers = {worker: held for worker, held in self._offers.items() if held[1] > since}

    def wake(self) -> None:
        """Let everyone who waits for a lease look again."""
        self._moved.notify()

    async def heartbeat(self, job: str, step: str, fence: int, progress: StepProgress, log: str = "") -> Step:
        """Renew a lease, note progress, append log text; returns the step with its new expiry, or as
        cancelled: its worker must end it.

        Raises:
            Aborted: LEASE_LOST.
        """

        def renew(tx: Transaction) -> Step:
            renewed = leases.heartbeat(tx, job, step, fence, progress, self.policy, self._clock_us())
            if renewed.state is StepState.RUNNING:
                logs.append_log(tx, job, step, log)
                tx.after_commit(self._changed.notify)  # progress is watched; it makes no step ready
            return renewed

        return await self._database.write(renew)

    async def complete(self, job: str, step: str, fence: int, outcome: StepOutcome, log: str = "") -> None:
        """Record what a step made, once its blobs are known to be there and kept. Idempotent.

        Raises:
            Aborted: LEASE_LOST.
            FailedPrecondition: BLOB_NOT_FOUND, an output was not uploaded.
            Unavailable: the registry is away; the lease stays, complete again.
        """
        held = await self._database.read(lambda tx: leases.find_step(tx, job, step))
        digests = sorted({blob.digest for blob in outcome.outputs.values()} | {outcome.record} - {""})
        # Not for who was cancelled or lost the lease: nothing would ever let go of the reference.
        if held is not None and held.fence == fence and held.state is StepState.RUNNING and digests:
            reference = "step-" + held.cache_key.removeprefix("sha256:")[:40]
            await self._outputs.keep(held.project, reference, digests)

        def complete(tx: Transaction) -> list[Job]:
            moved = leases.complete_step(tx, job, step, fence, outcome, self._clock_us())
            if moved:
                logs.append_log(tx, job, step, log)
            return moved

        await self._move(complete)
        if held is not None:
            _ended.add(1, held.spec.kind, "succeeded")

    async def fail(self, job: str, step: str, fence: int, failure: StepFailure, log: str = "") -> bool:
        """Record how a step failed; returns whether it will run again. Idempotent.

        Raises:
            Aborted: LEASE_LOST.
        """

        def fail(tx: Transaction) -> list[Job]:
            moved = leases.fail_step(tx, job, step, fence, failure, self.policy, self._clock_us())
            if moved:
                logs.append_log(tx, job, step, log)
            return moved

        await self._move(fail)
        held = await self._database.read(lambda tx: leases.find_step(tx, job, step))
        again = held is not None and held.state is StepState.READY
        if held is not None:
            _ended.add(1, held.spec.kind, "failed, runs again" if again else "failed")
        return again

    async def give_back(self, job: str, step: str, fence: int) -> None:
        """Return a lease unused. Raises: Aborted LEASE_LOST."""
        await self._move(lambda tx: [leases.give_back(tx, job, step, fence, self._clock_us())])

    async def log(self, job: str, step: str) -> tuple[str, bool]:
        """Return the end of a step's log and whether its beginning is gone; a cached step has the log of
        the run that made its result (("", True) where that run's job is not kept any more).

        Raises:
            NotFound: JOB_NOT_FOUND, STEP_NOT_FOUND.
        """

        def read(tx: Transaction) -> tuple[str, bool]:
            jobs.get_job(tx, job)
            held = leases.find_step(tx, job, step)
            if held is None:
                raise NotFound("STEP_NOT_FOUND", f"job {job!r} has no step {step!r}.", job=job, step=step)
            if held.cached:
                return logs.read_log_of_key(tx, held.project, held.cache_key, held.state.value)
            return logs.read_log(tx, job, step)

        return await self._database.read(read)

    # Upkeep

    async def run(self) -> None:
        """Collect lost leases and finish jobs until cancelled; the service runs this in the background.

        Once cancelled (the service stops), waiting calls of ``lease`` return without one.
        """
        try:
            while True:
                ticket = self._moved.ticket()
                try:
                    await self._expire()
                    await self._finisher.start_due()
                except (BoardwrightError, DatabaseUnavailable) as error:
                    _log.warning("jobs upkeep waits: %s", error)
                await _wait(ticket, _UPKEEP_SECONDS)
        finally:
            self._stopping = True
            self._moved.notify()
            await self._finisher.stop()

    async def upkeep(self) -> None:
        """Do once what ``run`` does again and again, and wait for it."""
        await self._expire()
        await asyncio.gather(*await self._finisher.start_due())

    async def _expire(self) -> None:
        now = self._clock_us()
        if await self._database.read(lambda tx: leases.any_expired(tx, now)):
            await self._move(lambda tx: leases.expire_leases(tx, self.policy, now))

    async def _move(self, change: Callable[[Transaction], Sequence[Job]]) -> None:
        def run(tx: Transaction) -> None:
            self._announce(tx, change(tx))

        await self._database.write(run)

    def _announce(self, tx: Transaction, moved: Sequence[Job]) -> Sequence[Job]:
        for job in moved:
            if jobs.announce(tx, job):
                self._owner.record(tx, job)
        if moved:  # who looks in vain must not wake itself, and everybody else, to look again
            tx.after_commit(self._changed.notify)
            tx.after_commit(self._moved.notify)
        return moved
