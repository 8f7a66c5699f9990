"""Jobs and leases on both databases: the DAG advances, the cache saves work, fencing holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from boardwright.database import Database, DatabaseUnavailable, Transaction
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.dag import JobState, StepState
from boardwright.jobs.domain.job import Job, Step, StepFailure, StepOutcome, StepProgress
from boardwright.jobs.domain.leases import LeasePolicy, Offer
from boardwright.jobs.service import JobService
from boardwright.jobs.step_api import Determinism, Requirements
from boardwright.jobs.storage.leases import may_lease
from boardwright.rpc.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from boardwright.testing.jobs import TEXT, SettableClock, SimulatedKeeper, SimulatedOwner, new_job, step

WORKER = Offer("worker-1")
POLICY = LeasePolicy(duration_seconds=30, max_attempts=3, first_backoff_seconds=1)


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


async def test_a_job_runs_through_its_dag_and_is_finished_by_its_owner(
    service: JobService, owner: SimulatedOwner
) -> None:
    job = await service.create(
        new_job(step("evaluate", "quantize"), step("quantize", "import"), step("import"))
    )
    assert states(job) == {"import": "ready", "quantize": "waiting", "evaluate": "waiting"}
    assert (await run_one(service, "a")).inputs == {"text": TEXT}
    assert (await service.get(job.name)).state is JobState.RUNNING
    second = await run_one(service, "b")
    assert second.spec.step == "quantize" and second.inputs["import"].digest == "sha256:" + "a" * 64
    await run_one(service, "c")
    assert (await service.get(job.name)).state is JobState.FINISHING
    await service.upkeep()
    done = await service.get(job.name)
    assert done.state is JobState.SUCCEEDED and done.finish_us
    assert done.results == tuple(f"projects/default/samples/{s}" for s in ("import", "quantize", "evaluate"))
    assert (done.title, done.spec) == ("a sample", {"sample": True})
    assert list(dict.fromkeys(owner.recorded)) == [
        (job.name, state) for state in ("queued", "running", "finishing", "succeeded")
    ]


async def test_what_is_no_dag_is_refused(service: JobService) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await service.create(new_job(step("quantize", "import")))
    assert caught.value.reason == "STEP_UNKNOWN"
    with pytest.raises(NotFound):
        await service.get("projects/default/sampleJobs/none")


async def test_a_step_that_ran_once_is_not_run_again(service: JobService) -> None:
    await service.create(new_job(step("import"), step("quantize", "import")))
    await run_one(service, "a")
    await run_one(service, "b")
    again = await service.create(new_job(step("import"), step("quantize", "import")))
    assert again.state is JobState.FINISHING
    assert all(held.cached and held.attempts == 0 for held in again.steps)
    assert again.step("quantize").outcome == outcome("b")
    other = await service.create(new_job(step("import", parameters={"bits": 4})))
    assert states(other) == {"import": "ready"}


async def test_an_interrupted_recipe_resumes_by_running_it_again(service: JobService) -> None:
    first = await service.create(new_job(step("import"), step("quantize", "import")))
    await run_one(service)
    await service.cancel(first.name)
    again = await service.create(new_job(step("import"), step("quantize", "import")))
    assert states(again) == {"import": "succeeded", "quantize": "ready"}


async def test_equal_steps_of_two_jobs_are_run_once(service: JobService) -> None:
    first = await service.create(new_job(step("import")))
    second = await service.create(new_job(step("import"), step("quantize", "import")))
    held = await lease(service)
    assert await service.lease(WORKER) is None
    await service.complete(held.job, held.spec.step, held.fence, outcome())
    jobs = [await service.get(job.name) for job in (first, second)]
    assert [states(job)["import"] for job in jobs] == ["succeeded", "succeeded"]
    assert [job.step("import").cached for job in jobs].count(True) == 1
    assert await service.lease(WORKER) is not None


async def test_again_measures_anew_and_the_newest_is_kept(service: JobService) -> None:
    measure = step("measure", determinism=Determinism.OBSERVED)
    await service.create(new_job(measure))
    await run_one(service, "a")
    anew = await service.create(new_job(step("measure", determinism=Determinism.OBSERVED, again=True)))
    assert states(anew) == {"measure": "ready"}
    await run_one(service, "b")
    third = await service.create(new_job(measure))
    assert third.step("measure").outcome == outcome("b")


async def test_a_deterministic_failure_is_remembered_until_a_retry(service: JobService) -> None:
    job = await service.create(new_job(step("import"), step("quantize", "import"), step("other")))
    held = await lease(service)
    assert held.spec.step == "import"
    failure = StepFailure("PICKLE_REFUSED", "os.system was refused.")
    await service.fail(held.job, "import", held.fence, failure)
    assert states(await service.get(job.name)) == {
        "import": "failed",
        "other": "ready",
        "quantize": "skipped",
    }
    await run_one(service)
    failed = await service.get(job.name)
    assert failed.state is JobState.FAILED and failed.failure == failure
    second = await service.create(new_job(step("import")))
    assert second.state is JobState.FAILED and second.step("import").cached
    third = await service.create(new_job(step("import"), retry=True))
    assert states(third) == {"import": "ready"}
    await service.cancel(third.name)
    retried = await service.retry(job.name)
    assert states(retried) == {"import": "ready", "other": "succeeded", "quantize": "waiting"}
    await run_one(service)
    await run_one(service)
    assert (await service.get(job.name)).state is JobState.FINISHING


async def test_other_failures_are_tried_again_with_backoff_and_bounded(
    service: JobService, clock: SettableClock
) -> None:
    job = await service.create(new_job(step("import")))
    busy = StepFailure("BUSY", "the device was busy.", False)
    for attempt, backoff in ((1, 1), (2, 2)):
        held = await lease(service)
        assert (held.attempts, held.fence) == (attempt, attempt)
        await service.fail(held.job, held.spec.step, held.fence, busy)
        clock.forward(backoff - 0.5)
        assert await service.lease(WORKER) is None
        clock.forward(1)
    held = await lease(service)
    await service.fail(held.job, held.spec.step, held.fence, busy)
    failed = await service.get(job.name)
    assert failed.failure is not None and "Tried 3 times" in failed.failure.message
    fresh = await service.create(new_job(step("import")))
    assert states(fresh) == {"import": "ready"}, "such a failure is not remembered"


async def test_a_lost_workers_step_goes_to_another_and_the_late_one_is_refused(
    service: JobService, clock: SettableClock
) -> None:
    job = await service.create(new_job(step("import")))
    first = await lease(service)
    clock.forward(POLICY.duration_seconds - 1)
    assert await service.lease(Offer("worker-2")) is None
    clock.forward(2)
    second = await lease(service, Offer("worker-2"))
    assert (second.spec.step, second.fence, second.worker) == ("import", first.fence + 1, "worker-2")
    for late in (
        service.heartbeat(job.name, "import", first.fence, StepProgress()),
        service.complete(job.name, "import", first.fence, outcome("b")),
        service.fail(job.name, "import", first.fence, StepFailure("BUSY", "busy", False)),
        service.give_back(job.name, "import", first.fence),
    ):
        with pytest.raises(Aborted) as caught:
            await late
        assert caught.value.reason == "LEASE_LOST"
    await service.complete(job.name, "import", second.fence, outcome("a"))
    assert (await service.get(job.name)).step("import").outcome == outcome("a")


async def test_a_heartbeat_keeps_the_lease_and_shows_progress(
    service: JobService, clock: SettableClock
) -> None:
    job = await service.create(new_job(step("import")))
    held = await lease(service)
    for done in range(4):
        clock.forward(20)
        renewed = await service.heartbeat(job.name, "import", held.fence, StepProgress(done, 4, "tracing"))
        assert renewed.lease_expires_us == clock.now_us + 30_000_000
    assert await service.lease(Offer("worker-2")) is None
    assert (await service.get(job.name)).step("import").progress == StepProgress(3, 4, "tracing")


async def test_a_step_that_loses_every_worker_fails_at_last(
    service: JobService, clock: SettableClock
) -> None:
    job = await service.create(new_job(step("import")))
    for _ in range(POLICY.max_attempts):
        await lease(service)
        clock.forward(31)
    await service.upkeep()
    failed = await service.get(job.name)
    assert failed.failure is not None and failed.failure.reason == "LEASE_EXPIRED"
    assert "worker-1" in failed.failure.message


async def test_completing_twice_is_harmless(service: JobService) -> None:
    job = await service.create(new_job(step("import")))
    held = await run_one(service)
    await service.complete(job.name, "import", held.fence, outcome("b"))
    assert (await service.get(job.name)).step("import").outcome == outcome("a")


async def test_a_lease_given_back_is_ready_at_once_and_does_not_count(service: JobService) -> None:
    await service.create(new_job(step("import")))
    for _ in range(POLICY.max_attempts + 2):
        held = await lease(service)
        await service.give_back(held.job, held.spec.step, held.fence)
    held = await lease(service)
    assert held.attempts == 1


async def test_cancelling_ends_what_has_not_ended(service: JobService) -> None:
    job = await service.create(new_job(step("import"), step("quantize", "import"), step("other")))
    held = await lease(service)
    cancelled = await service.cancel(job.name)
    assert cancelled.state is JobState.CANCELLED
    assert set(states(cancelled).values()) == {"cancelled"}
    told = await service.heartbeat(job.name, held.spec.step, held.fence, StepProgress())
    assert (told.state, told.lease_expires_us) == (StepState.CANCELLED, 0)
    assert await service.lease(WORKER) is None
    assert (await service.cancel(job.name)).revision == cancelled.revision
    await service.retry(job.name)
    assert (await lease(service)).fence == held.fence + 1


async def test_what_has_succeeded_stays_and_what_runs_is_not_retried(service: JobService) -> None:
    job = await service.create(new_job(step("import")))
    with pytest.raises(FailedPrecondition) as caught:
        await service.retry(job.name)
    assert caught.value.reason == "JOB_NOT_ENDED"
    await run_one(service)
    await service.upkeep()
    done = await service.get(job.name)
    assert await service.cancel(job.name) == await service.retry(job.name) == done


async def test_each_project_has_its_own_cache(service: JobService) -> None:
    await service.create(new_job(step("import")))
    await run_one(service)
    other = await service.create(new_job(step("import"), project="other"))
    assert states(other) == {"import": "ready"}
    await run_one(service)
    assert (await service.create(new_job(step("import"), project="other"))).state is JobState.FINISHING


async def test_outputs_are_kept_and_must_be_there(service: JobService, keeper: SimulatedKeeper) -> None:
    job = await service.create(new_job(step("import")))
    held = await lease(service)
    keeper.missing = {"sha256:" + "a" * 64}
    with pytest.raises(FailedPrecondition) as caught:
        await service.complete(job.name, "import", held.fence, outcome("a"))
    assert caught.value.reason == "BLOB_NOT_FOUND"
    assert states(await service.get(job.name)) == {"import": "running"}
    keeper.missing = set()
    await service.complete(job.name, "import", held.fence, outcome("a"))
    (reference,) = keeper.references
    assert reference.startswith("projects/default/references/step-")
    assert keeper.references[reference] == ["sha256:" + "a" * 64, "sha256:" + "e" * 64]


async def test_nothing_is_kept_for_a_step_that_was_cancelled(
    service: JobService, keeper: SimulatedKeeper
) -> None:
    job = await service.create(new_job(step("import")))
    held = await lease(service)
    await service.cancel(job.name)
    with pytest.raises(Aborted):
        await service.complete(job.name, "import", held.fence, outcome("a"))
    assert keeper.references == {}


async def test_a_steps_log_grows_with_heartbeats_and_keeps_its_end(service: JobService) -> None:
    job = await service.create(new_job(step("import")))
    held = await lease(service)
    await service.heartbeat(job.name, "import", held.fence, StepProgress(), "first\n")
    assert await service.log(job.name, "import") == ("first\n", False)
    await service.complete(job.name, "import", held.fence, outcome(), "x" * (256 << 10) + "last")
    log, truncated = await service.log(job.name, "import")
    assert truncated and len(log) == 256 << 10 and log.endswith("xlast")
    cached = await service.create(new_job(step("import")))
    assert (await service.log(cached.name, "import")) == (log, True)
    with pytest.raises(NotFound) as caught:
        await service.log(job.name, "none")
    assert caught.value.reason == "STEP_NOT_FOUND"


async def test_a_step_goes_only_to_a_worker_that_fits(service: JobService) -> None:
    await service.create(new_job(step("build", requires=Requirements(board="jetson-orin-nx"))))
    await service.create(new_job(step("import")))
    assert (await lease(service)).spec.step == "import"
    assert await service.lease(WORKER) is None
    board = Offer("agent-1", boards=frozenset({"jetson-orin-nx"}))
    assert (await lease(service, board)).spec.step == "build"


async def test_many_steps_that_fit_nobody_here_do_not_hide_the_one_that_does(service: JobService) -> None:
    elsewhere = Requirements(board="imx8m-plus")
    for number in range(3):
        steps = (step(f"s{n}", requires=elsewhere, parameters={"n": [number, n]}) for n in range(50))
        await service.create(new_job(*steps))
    await service.create(new_job(step("import")))
    assert (await lease(service)).spec.step == "import"


async def test_two_workers_never_get_the_same_step(service: JobService) -> None:
    await service.create(new_job(*(step(f"s{n}") for n in range(8))))
    taken = await asyncio.gather(*(service.lease(Offer(f"worker-{n}")) for n in range(12)))
    steps = [held[0].spec.step for held in taken if held is not None]
    assert sorted(steps) == [f"s{n}" for n in range(8)]


async def test_a_waiting_lease_gets_a_new_step_at_once(service: JobService) -> None:
    waiting = asyncio.ensure_future(service.lease(WORKER, wait_seconds=30))
    await asyncio.sleep(0)
    await service.create(new_job(step("import")))
    async with asyncio.timeout(20):
        assert await waiting is not None
    assert await service.lease(WORKER, wait_seconds=0.01) is None


def counted_looks(monkeypatch: pytest.MonkeyPatch) -> list[Offer]:
    """Whoever looks for a step from now on; nobody looks again without being woken."""
    looks = []

    def look(tx: Transaction, offer: Offer, now_us: int) -> bool:
        looks.append(offer)
        return may_lease(tx, offer, now_us)

    monkeypatch.setattr("boardwright.jobs.service.leases.may_lease", look)
    monkeypatch.setattr("boardwright.jobs.service._LOOK_AGAIN_SECONDS", 600.0)
    return looks


async def test_a_step_that_another_worker_runs_already_is_waited_for_without_looking_again_and_again(
    service: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.create(new_job(step("import")))
    held = await lease(service)
    same = await service.create(new_job(step("import")))
    looks = counted_looks(monkeypatch)
    waiting = asyncio.ensure_future(service.lease(Offer("worker-2"), wait_seconds=600))
    while not looks:
        await asyncio.sleep(0.01)
    for done in range(5):
        await service.heartbeat(held.job, "import", held.fence, StepProgress(done, 5, "tracing"))
    await service.complete(held.job, "import", held.fence, outcome())
    assert (await service.get(same.name)).step("import").cached
    await service.create(new_job(step("import", parameters={"step": "another"})))
    assert await waiting is not None
    assert len(looks) <= 3  # at first, once it was completed, once there was another


async def test_an_idle_worker_writes_nothing_and_is_not_woken_by_progress(
    service: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps may wait for a board for days, beside workers that ask again and again."""
    requires = Requirements(board="jetson-orin-nx")
    job = await service.create(new_job(step("import"), *(step(f"s{n}", requires=requires) for n in range(3))))
    held = await lease(service)
    with monkeypatch.context() as patch:
        patch.setattr(service._database, "write", None)
        assert await service.lease(WORKER) is None
    looks = counted_looks(monkeypatch)
    waiting = asyncio.ensure_future(service.lease(WORKER, wait_seconds=600))
    while not looks:
        await asyncio.sleep(0.01)
    for done in range(5):
        await service.heartbeat(job.name, "import", held.fence, StepProgress(done, 5, "tracing"))
    await service.create(new_job(step("import", parameters={"step": "another"})))
    assert await waiting is not None
    assert len(looks) == 2


async def test_finishing_waits_for_an_absent_service_and_fails_on_a_refusal(
    service: JobService, owner: SimulatedOwner, clock: SettableClock
) -> None:
    job = await service.create(new_job(step("import")))
    await run_one(service)
    owner.failures = [
        Unavailable("SERVICE_UNREACHABLE", "away"),
        DatabaseUnavailable("away"),
        ResourceExhausted("TOO_MANY_CALLS", "the creator's other calls"),
    ]
    for _ in range(5):
        await service.upkeep()
        await service.upkeep()
        clock.forward(2)
    assert (await service.get(job.name)).state is JobState.SUCCEEDED and len(owner.finished) == 1
    long_away = await service.create(new_job(step("import")))
    await service._database.write(lambda tx: tx.execute("UPDATE jobs SET finish_attempts = 5000"))
    owner.failures = [Unavailable("SERVICE_UNREACHABLE", "away")]
    await service.upkeep()
    clock.forward(70)
    await service.upkeep()
    assert (await service.get(long_away.name)).state is JobState.SUCCEEDED
    refused = await service.create(new_job(step("import")))
    owner.failures = [PermissionDenied("PERMISSION_MISSING", "no")]
    await service.upkeep()
    failed = await service.get(refused.name)
    assert failed.failure == StepFailure("PERMISSION_MISSING", "no")


async def test_a_job_whose_finish_waits_holds_up_no_other(service: JobService, owner: SimulatedOwner) -> None:
    upkeep = asyncio.ensure_future(service.run())
    owner.blocked = asyncio.Event()
    slow = await service.create(new_job(step("import", parameters={"n": 1})))
    await run_one(service)
    await owner.reached.wait()
    owner.blocked = None
    quick = await service.create(new_job(step("import", parameters={"n": 2})))
    await run_one(service)
    async with asyncio.timeout(20):
        assert [job.state async for job in service.watch(quick.name)][-1] is JobState.SUCCEEDED
    assert (await service.get(slow.name)).state is JobState.FINISHING
    upkeep.cancel()
    await asyncio.gather(upkeep, return_exceptions=True)
    await service.upkeep()
    assert (await service.get(slow.name)).state is JobState.SUCCEEDED, "done again after a restart"


async def test_a_missing_output_fails_the_step_that_needs_it(service: JobService) -> None:
    job = await service.create(new_job(step("import"), step("quantize", "import")))
    held = await lease(service)
    await service.complete(job.name, "import", held.fence, StepOutcome())
    failed = await service.get(job.name)
    assert failed.failure is not None and failed.failure.reason == "OUTPUT_UNKNOWN"


async def _next(watch: AsyncIterator[Job]) -> Job:
    async with asyncio.timeout(20):
        return await anext(watch)


async def test_a_watch_sees_every_state_in_order_and_ends_with_the_job(service: JobService) -> None:
    job = await service.create(new_job(step("import")))
    watch = service.watch(job.name)
    assert (await _next(watch)).state is JobState.QUEUED
    held = await lease(service)
    running = await _next(watch)
    assert running.step("import").state is StepState.RUNNING
    await service.heartbeat(job.name, "import", held.fence, StepProgress(1, 2, "tracing"))
    assert (await _next(watch)).step("import").progress == StepProgress(1, 2, "tracing")
    await service.complete(job.name, "import", held.fence, outcome())
    assert (await _next(watch)).state is JobState.FINISHING
    await service.upkeep()
    last = await _next(watch)
    assert last.state is JobState.SUCCEEDED
    with pytest.raises(StopAsyncIteration):
        await _next(watch)
    resumed = [seen.state async for seen in service.watch(job.name, running.revision)]
    assert resumed == [JobState.SUCCEEDED]
    assert [seen async for seen in service.watch(job.name, last.revision)] == []
    with pytest.raises(NotFound):
        await _next(service.watch("projects/default/sampleJobs/none"))


async def test_the_upkeep_loop_finishes_jobs_by_itself(service: JobService) -> None:
    loop = asyncio.ensure_future(service.run())
    job = await service.create(new_job(step("import")))
    await run_one(service)
    async with asyncio.timeout(20):
        seen = [held.state async for held in service.watch(job.name)]
    assert seen[-1] is JobState.SUCCEEDED
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop
