"""Jobs on both databases: the DAG advances, the cache saves work, owners finish them, watches see it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from boardwright.database import DatabaseUnavailable
from boardwright.jobs.domain.dag import JobState, StepState
from boardwright.jobs.domain.job import Job, StepFailure, StepOutcome, StepProgress
from boardwright.jobs.service import JobService
from boardwright.jobs.step_api import Determinism
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

from .conftest import WORKER, lease, outcome, run_one, states


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
