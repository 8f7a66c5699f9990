"""Leases on both databases: who gets which step, what is tried again, and that fencing holds."""

import asyncio

import pytest

from boardwright.database import Transaction
from boardwright.jobs.domain.job import StepFailure, StepProgress
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.service import JobService
from boardwright.jobs.step_api import Requirements
from boardwright.jobs.storage.leases import may_lease
from boardwright.rpc.errors import Aborted
from boardwright.testing.jobs import SettableClock, new_job, step

from .conftest import POLICY, WORKER, lease, outcome, run_one, states


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
