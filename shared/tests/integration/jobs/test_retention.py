"""Jobs that ended long ago go; what the cache, a running worker or a waiting client needs stays."""

import pytest

from boardwright.database import Database
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.job import Step, StepFailure, StepOutcome, StepProgress
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.service import JobService
from boardwright.jobs.storage.retention import DEFAULT_DAYS, VARIABLE, forget_ended, forgetting, kept_days
from boardwright.rpc.errors import Aborted, NotFound
from boardwright.testing.jobs import SettableClock, SimulatedKeeper, SimulatedOwner, new_job, step

DAY_SECONDS = 24 * 3600
MADE = StepOutcome({"text": Blob("sha256:" + "a" * 64, 3, "text/plain")})


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def service(database: Database, clock: SettableClock) -> JobService:
    return JobService(database, SimulatedOwner(), SimulatedKeeper(), clock_us=clock)


async def run(service: JobService, log: str) -> Step:
    taken = await service.lease(Offer("worker-1"))
    assert taken is not None
    held = taken[0]
    await service.heartbeat(held.job, held.spec.step, held.fence, StepProgress(), log)
    await service.complete(held.job, held.spec.step, held.fence, MADE)
    await service.upkeep()
    return held


async def count(database: Database, table: str) -> int:
    row = await database.read(lambda tx: tx.one(f"SELECT COUNT(*) AS n FROM {table}"))
    assert row is not None
    return int(row["n"])


async def forget(database: Database, clock: SettableClock, days: int = DEFAULT_DAYS) -> int:
    (forgets,) = forgetting(days)
    return await database.write(lambda tx: forgets(tx, clock.now_us))


async def test_ended_jobs_go_with_steps_and_logs_and_the_cache_stays(
    service: JobService, database: Database, clock: SettableClock
) -> None:
    old = await service.create(new_job(step("import")))
    await run(service, "old words\n")
    cancelled = await service.create(new_job(step("other", parameters={"n": 1})))
    await service.cancel(cancelled.name)
    clock.forward(DEFAULT_DAYS * DAY_SECONDS)
    assert await forget(database, clock) == 0
    assert await forget(database, clock, days=10**9) == 0, "longer than a database's numbers reach"
    young = await service.create(new_job(step("import")))
    await service.upkeep()
    assert await service.log(young.name, "import") == ("old words\n", False)
    anew = await service.create(new_job(step("import", again=True)))
    await service.lease(Offer("worker-1"))
    await service.cancel(anew.name)
    assert await service.log(young.name, "import") == ("old words\n", False), "not of the attempt"
    clock.forward(1)
    assert await forget(database, clock) == 2
    for gone in (old, cancelled):
        with pytest.raises(NotFound, match="there is no job"):
            await service.get(gone.name)
    assert [await count(database, table) for table in ("jobs", "job_steps", "step_logs")] == [2, 2, 0]
    assert await service.log(young.name, "import") == ("", True)
    again = await service.create(new_job(step("import")))
    assert (await service.get(again.name)).step("import").cached


async def test_what_has_not_ended_stays_however_old_and_a_retry_makes_a_job_young(
    service: JobService, database: Database, clock: SettableClock
) -> None:
    running = await service.create(new_job(step("import")))
    taken = await service.lease(Offer("worker-1"))
    waiting = await service.create(new_job(step("other", parameters={"n": 1})))
    failed = await service.create(new_job(step("third", parameters={"n": 2})))
    await service.cancel(failed.name)
    clock.forward(2 * DEFAULT_DAYS * DAY_SECONDS)
    await service.retry(failed.name)
    assert await forget(database, clock) == 0
    for kept in (running, waiting, failed):
        assert not (await service.get(kept.name)).ended
    assert taken is not None


async def test_a_late_worker_of_a_job_that_is_gone_is_refused(
    service: JobService, database: Database, clock: SettableClock
) -> None:
    job = await service.create(new_job(step("import")))
    taken = await service.lease(Offer("worker-1"))
    assert taken is not None
    await service.cancel(job.name)
    clock.forward((DEFAULT_DAYS + 1) * DAY_SECONDS)
    assert await forget(database, clock) == 1
    with pytest.raises(Aborted, match="gone"):
        await service.complete(job.name, "import", taken[0].fence, MADE)
    with pytest.raises(Aborted, match="gone"):
        await service.fail(job.name, "import", taken[0].fence, StepFailure("BUSY", "busy"))


async def test_one_run_deletes_a_bounded_number_oldest_first(
    service: JobService, database: Database, clock: SettableClock
) -> None:
    names = []
    for number in range(5):
        job = await service.create(new_job(step("import", parameters={"n": number})))
        await service.cancel(job.name)
        names.append(job.name)
        clock.forward(1)
    assert await database.write(lambda tx: forget_ended(tx, clock.now_us, limit=3)) == 3
    left = await database.read(lambda tx: tx.all("SELECT name FROM jobs ORDER BY finish_us"))
    assert [row["name"] for row in left] == names[3:]


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert kept_days() == DEFAULT_DAYS
    monkeypatch.setenv(VARIABLE, "0")
    assert kept_days() == 0 and forgetting(0) == []
    for wrong in ("6", "-1", "soon"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(ValueError, match="at least 7"):
            kept_days()
