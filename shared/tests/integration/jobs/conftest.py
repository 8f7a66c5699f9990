"""Jobs on SQLite and on PostgreSQL, with a worker that tests play; a folder for steps to write in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from boardwright.database import Database
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.job import Job, Step, StepOutcome
from boardwright.jobs.domain.leases import LeasePolicy, Offer
from boardwright.jobs.service import JobService
from boardwright.testing.database import database_fixture
from boardwright.testing.executor_contract import writable_folder
from boardwright.testing.jobs import MIGRATIONS, SettableClock, SimulatedKeeper, SimulatedOwner

WORKER = Offer("worker-1")
POLICY = LeasePolicy(duration_seconds=30, max_attempts=3, first_backoff_seconds=1)
database = database_fixture("jobs", MIGRATIONS)


@pytest.fixture
def writable() -> Iterator[Path]:
    """See ``writable_folder``."""
    with writable_folder() as folder:
        yield folder


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def owner() -> SimulatedOwner:
    return SimulatedOwner()


@pytest.fixture
def keeper() -> SimulatedKeeper:
    return SimulatedKeeper()


@pytest.fixture
def service(
    database: Database, owner: SimulatedOwner, keeper: SimulatedKeeper, clock: SettableClock
) -> JobService:
    return JobService(database, owner, keeper, policy=POLICY, clock_us=clock)


def outcome(letter: str = "a", **values: int) -> StepOutcome:
    return StepOutcome(
        {"text": Blob("sha256:" + letter * 64, 3, "text/plain")}, values, (), "sha256:" + "e" * 64
    )


async def lease(service: JobService, offer: Offer = WORKER) -> Step:
    taken = await service.lease(offer)
    assert taken is not None
    return taken[0]


async def run_one(service: JobService, letter: str = "a", offer: Offer = WORKER) -> Step:
    held = await lease(service, offer)
    await service.complete(held.job, held.spec.step, held.fence, outcome(letter))
    return held


def states(job: Job) -> dict[str, str]:
    return {held.spec.step: held.state.value for held in job.steps}
