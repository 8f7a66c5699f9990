"""Workers over real gRPC: they run, report, return, are killed, and come late."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from boardwright.database import Database
from boardwright.jobs.domain.dag import JobState, StepSpec
from boardwright.jobs.domain.job import Job
from boardwright.jobs.domain.leases import LeasePolicy, Offer
from boardwright.jobs.service import JobService
from boardwright.jobs.step_api import Requirements
from boardwright.jobs.subprocess_executor import SubprocessExecutor
from boardwright.jobs.worker.app import FolderInUse, run_worker
from boardwright.jobs.worker.kinds import installed_kinds
from boardwright.jobs.worker.settings import WorkerSettings
from boardwright.telemetry import span
from boardwright.testing import sample_steps
from boardwright.testing.database import fresh_database_url
from boardwright.testing.executor_contract import alive, wait_for
from boardwright.testing.job_server import WORKER_TOKEN, FolderTransfer, serve_leases
from boardwright.testing.jobs import MIGRATIONS, SimulatedKeeper, SimulatedOwner, new_job, step

POLICY = LeasePolicy(duration_seconds=1.5, max_attempts=3, first_backoff_seconds=0.05)

_WORKER_PROCESS = """
import asyncio, pathlib, sys
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.subprocess_executor import SubprocessExecutor
from boardwright.jobs.worker.app import run_worker
from boardwright.jobs.worker.settings import WorkerSettings
from boardwright.testing.job_server import WORKER_TOKEN, FolderTransfer
endpoint, folder, kinds, blobs = sys.argv[1:]
folder, offer = pathlib.Path(folder), Offer("killed")
settings = WorkerSettings((endpoint,), "", WORKER_TOKEN, folder, offer, python_path=(kinds,))
asyncio.run(run_worker(settings, SubprocessExecutor(), FolderTransfer(pathlib.Path(blobs))))
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """SQLite alone: what the databases do differently, ``test_job_service`` tests on both."""
    with fresh_database_url("sqlite", "jobs", MIGRATIONS, tmp_path) as url:
        opened = Database.open(url, schema="jobs", migrations=MIGRATIONS)
        yield opened
        opened.close()


@pytest.fixture
def kinds(tmp_path: Path) -> str:
    return sample_steps.install(tmp_path / "kinds")


@pytest.fixture
def transfer(tmp_path: Path) -> FolderTransfer:
    return FolderTransfer(tmp_path / "blobs")


@pytest.fixture
def service(database: Database) -> JobService:
    return JobService(database, SimulatedOwner(), SimulatedKeeper(), policy=POLICY)


@pytest.fixture
async def endpoint(service: JobService, tmp_path: Path) -> AsyncIterator[str]:
    async with serve_leases(service, tmp_path) as served:
        upkeep = asyncio.ensure_future(service.run())
        yield served
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)


Start = Callable[..., "asyncio.Task[None]"]


@pytest.fixture
async def start(endpoint: str, tmp_path: Path, kinds: str, transfer: FolderTransfer) -> AsyncIterator[Start]:
    """Start workers inside the test's loop; they are stopped at its end."""
    tasks: list[asyncio.Task[None]] = []

    def run(name: str = "worker-1", endpoints: tuple[str, ...] = (endpoint,)) -> asyncio.Task[None]:
        folder = tmp_path / name
        settings = WorkerSettings(
            endpoints, "", WORKER_TOKEN, folder, Offer(name, installed_kinds((kinds,))), python_path=(kinds,)
        )
        tasks.append(
            asyncio.ensure_future(run_worker(settings, SubprocessExecutor(poll_seconds=0.02), transfer))
        )
        return tasks[-1]

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def ended(service: JobService, name: str, seconds: float = 30) -> Job:
    async with asyncio.timeout(seconds):
        return [job async for job in service.watch(name)][-1]


def upper(transfer: FolderTransfer, text: str = "digits", **changes: object) -> StepSpec:
    blob = transfer.put(text.encode())
    environment = {"letters": "ascii"}
    given = {"parameters": {"suffix": "!"}, "inputs": {"text": blob}, "environment": environment, **changes}
    return step("import", **given)


def sleeping(name: str, seconds: float, pids: Path, **parameters: object) -> StepSpec:
    return step(
        name,
        kind="sample/sleep",
        parameters={"seconds": seconds, "pids": str(pids), **parameters},
        inputs={},
        requires=Requirements(time_limit_seconds=60),
    )


async def test_a_job_runs_from_blobs_to_blobs_with_a_record(
    service: JobService, start: Start, transfer: FolderTransfer, tmp_path: Path
) -> None:
    start()
    second = step("twice", "import", parameters={"suffix": "?"}, environment={"letters": "ascii"})
    second = StepSpec(**{**_fields(second), "inputs": {"text": second.inputs["import"]}})
    job = await service.create(new_job(upper(transfer), second))
    done = await ended(service, job.name)
    assert done.state is JobState.SUCCEEDED
    outcome = done.step("twice").outcome
    assert outcome is not None and transfer.read(outcome.outputs["text"].digest) == b"DIGITS!?"
    assert (outcome.values, outcome.warnings) == ({"length": 8}, ("letters only",))
    record = json.loads(transfer.read(outcome.record))
    definition = record["predicate"]["buildDefinition"]
    assert definition["internalParameters"]["cacheKey"] == done.step("twice").cache_key
    assert record["subject"][0]["digest"]["sha256"] == outcome.outputs["text"].digest[7:]
    await wait_for(lambda: not list((tmp_path / "worker-1" / "steps").iterdir()))


def _fields(spec: StepSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in StepSpec.__slots__}


async def test_a_step_belongs_to_the_trace_that_created_its_job(
    service: JobService, start: Start, transfer: FolderTransfer
) -> None:
    start()
    with span("push") as push:
        job = await service.create(new_job(upper(transfer)))
    assert (await ended(service, job.name)).trace == push.traceparent
    assert transfer.traces == {push.trace_id}


async def test_inputs_are_fetched_once(service: JobService, start: Start, transfer: FolderTransfer) -> None:
    start()
    for suffix in ("a", "b"):
        job = await service.create(new_job(upper(transfer, parameters={"suffix": suffix})))
        assert (await ended(service, job.name)).state is JobState.SUCCEEDED
    assert len(transfer.fetched) == 1


async def test_a_step_reads_nothing_but_its_inputs(
    service: JobService, start: Start, transfer: FolderTransfer
) -> None:
    start()
    gone = upper(transfer)
    (transfer.folder / gone.inputs["text"].digest[7:]).unlink()  # type: ignore[union-attr]
    job = await service.create(new_job(gone))
    failed = await ended(service, job.name)
    assert failed.failure is not None and failed.failure.reason == "BLOB_NOT_FOUND"
    assert failed.step("import").attempts == POLICY.max_attempts


async def test_failures_keep_their_reason_and_the_log(service: JobService, start: Start) -> None:
    start()
    refused = await service.create(
        new_job(step("import", kind="sample/refuse", parameters={"deterministic": True}, inputs={}))
    )
    failed = await ended(service, refused.name)
    assert failed.failure is not None and failed.failure.reason == "REFUSED"
    assert failed.step("import").attempts == 1
    crashed = await service.create(
        new_job(step("import", kind="sample/crash", parameters={"how": "exit"}, inputs={}))
    )
    failed = await ended(service, crashed.name)
    assert failed.failure is not None and failed.failure.reason == "STEP_CRASHED"
    assert failed.step("import").attempts == POLICY.max_attempts
    assert "about to leave" in (await service.log(crashed.name, "import"))[0]


async def test_a_step_cannot_lead_its_log_to_the_workers_secrets(
    service: JobService, start: Start, tmp_path: Path
) -> None:
    start()
    secret = tmp_path / "credentials.json"
    secret.write_text("a worker's token", encoding="utf-8")
    places = ["log.txt", "../log.txt", "progress.jsonl", "result.json"]
    parameters = {"places": places, "how": "symlink", "leads_to": str(secret)}
    job = await service.create(new_job(step("import", kind="sample/plant", parameters=parameters, inputs={})))
    failed = await ended(service, job.name)
    assert failed.failure is not None and failed.failure.reason == "STEP_FILE_REFUSED"
    assert "token" not in failed.failure.message + (await service.log(job.name, "import"))[0]


async def test_a_failure_that_passes_is_tried_again(
    service: JobService, start: Start, tmp_path: Path, writable: Path
) -> None:
    start()
    parameters = {"counter": str(writable / "counter"), "times": 2}
    job = await service.create(
        new_job(step("import", kind="sample/fail-until", parameters=parameters, inputs={}))
    )
    done = await ended(service, job.name)
    assert done.state is JobState.SUCCEEDED and done.step("import").attempts == 3


async def test_progress_travels_with_heartbeats_and_the_lease_outlives_its_first_term(
    service: JobService, start: Start, tmp_path: Path, writable: Path
) -> None:
    start()
    job = await service.create(new_job(sleeping("import", 3.5, writable / "pids")))
    seen = []
    async with asyncio.timeout(20):
        async for state in service.watch(job.name):
            seen.append(state.step("import").progress)
    progress = [each.done for each in seen if each.what == "sleeping"]
    assert len(progress) >= 3 and progress == sorted(progress)
    assert (await service.get(job.name)).step("import").attempts == 1


async def test_a_cancelled_job_ends_its_step(
    service: JobService, start: Start, tmp_path: Path, writable: Path
) -> None:
    start()
    pids = writable / "pids"
    job = await service.create(new_job(sleeping("import", 600, pids, children=1)))
    await wait_for(pids.exists)
    await service.cancel(job.name)
    members = [int(pid) for pid in pids.read_text().split()]
    await wait_for(lambda: not any(alive(pid) for pid in members))
    after = await service.create(new_job(step("other", kind="sample/surroundings", inputs={})))
    assert (await ended(service, after.name)).state is JobState.SUCCEEDED


async def test_a_stopping_worker_returns_its_lease(
    service: JobService, start: Start, tmp_path: Path, writable: Path
) -> None:
    worker = start()
    pids = writable / "pids"
    job = await service.create(new_job(sleeping("import", 600, pids)))
    await wait_for(pids.exists)
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    returned = (await service.get(job.name)).step("import")
    assert (returned.state.value, returned.attempts) == ("ready", 0)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


async def test_a_killed_workers_step_runs_again_elsewhere(
    service: JobService,
    start: Start,
    endpoint: str,
    tmp_path: Path,
    kinds: str,
    transfer: FolderTransfer,
    writable: Path,
) -> None:
    pids = writable / "pids"
    job = await service.create(new_job(sleeping("import", 2, pids)))
    command = [sys.executable, "-c", _WORKER_PROCESS, endpoint, str(tmp_path / "killed"), kinds]
    killed = subprocess.Popen([*command, str(transfer.folder)])
    try:
        await wait_for(pids.exists)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    start("rescuer")
    done = await ended(service, job.name)
    assert done.state is JobState.SUCCEEDED
    assert (done.step("import").attempts, done.step("import").worker) == (2, "rescuer")


async def test_two_workers_never_share_a_folder(start: Start, tmp_path: Path) -> None:
    start()
    await wait_for((tmp_path / "worker-1" / "steps").exists)
    with pytest.raises(FolderInUse, match="BOARDWRIGHT_WORKER_FOLDER"):
        await start()


async def test_a_killed_workers_successor_reports_its_lease_at_once_and_its_step_goes_on(
    database: Database, tmp_path: Path, kinds: str, transfer: FolderTransfer, start: Start
) -> None:
    policy = LeasePolicy(duration_seconds=600, first_backoff_seconds=0.05)
    jobs = JobService(database, SimulatedOwner(), SimulatedKeeper(), policy=policy)
    (tmp_path / "long").mkdir()
    async with serve_leases(jobs, tmp_path / "long") as endpoint:
        job = await jobs.create(new_job(step("import", kind="sample/go-on", parameters={"of": 2}, inputs={})))
        command = [sys.executable, "-c", _WORKER_PROCESS, endpoint, str(tmp_path / "worker-9"), kinds]
        killed = subprocess.Popen([*command, str(transfer.folder)])
        states = tmp_path / "worker-9" / "states"
        try:
            await wait_for(lambda: bool(list(states.glob("*/attempts"))))
        finally:
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
        start("worker-9", endpoints=(endpoint,))
        async with asyncio.timeout(30):
            async for state in jobs.watch(job.name):
                if state.state is JobState.FINISHING:
                    break
        outcome = state.step("import").outcome
        assert outcome is not None and outcome.values == {"attempts": 2}
        assert state.step("import").attempts == 2
        await wait_for(lambda: not list(states.iterdir()))


async def test_a_late_worker_is_refused_and_drops_its_work(
    service: JobService,
    start: Start,
    endpoint: str,
    tmp_path: Path,
    kinds: str,
    transfer: FolderTransfer,
    writable: Path,
) -> None:
    pids = writable / "pids"
    job = await service.create(new_job(sleeping("import", 2.5, pids)))
    command = [sys.executable, "-c", _WORKER_PROCESS, endpoint, str(tmp_path / "frozen"), kinds]
    frozen = subprocess.Popen([*command, str(transfer.folder)])
    try:
        await wait_for(pids.exists)
        os.kill(frozen.pid, signal.SIGSTOP)
        start("rescuer")
        await wait_for_attempt(service, job.name, 2)
        os.kill(frozen.pid, signal.SIGCONT)
        done = await ended(service, job.name)
        assert (done.state, done.step("import").worker) == (JobState.SUCCEEDED, "rescuer")
        assert done.step("import").attempts == 2
        await wait_for(lambda: not list((tmp_path / "frozen" / "steps").iterdir()))
    finally:
        frozen.kill()
        frozen.wait()


async def wait_for_attempt(service: JobService, name: str, attempts: int) -> None:
    async with asyncio.timeout(20):
        async for job in service.watch(name):
            if job.step("import").attempts >= attempts:
                return


async def test_a_worker_with_two_endpoints_runs_one_step_at_a_time(
    service: JobService, start: Start, endpoint: str, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        (tmp_path / "second").mkdir()
        second = await stack.enter_async_context(serve_leases(service, tmp_path / "second"))
        start(endpoints=(endpoint, second))
        names = []
        for number in range(4):
            spec = step("import", kind="sample/sleep", parameters={"seconds": 0.2, "n": number}, inputs={})
            names.append((await service.create(new_job(spec))).name)
        done = [await ended(service, name) for name in names]
    spans = sorted((job.step("import").start_us, job.step("import").finish_us) for job in done)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    assert all(job.step("import").attempts == 1 for job in done)


async def test_a_worker_waits_for_its_service_to_come_back(
    database: Database, start: Start, tmp_path: Path, kinds: str, writable: Path
) -> None:
    jobs = JobService(database, SimulatedOwner(), SimulatedKeeper(), policy=LeasePolicy(duration_seconds=6))
    pids = writable / "pids"
    (tmp_path / "again").mkdir()
    async with serve_leases(jobs, tmp_path / "again") as endpoint:
        port = int(endpoint.rpartition(":")[2])
        start("patient", endpoints=(endpoint,))
        job = await jobs.create(new_job(sleeping("import", 2, pids)))
        await wait_for(pids.exists)
    async with serve_leases(jobs, tmp_path / "again", port):
        async with asyncio.timeout(30):
            async for state in jobs.watch(job.name):
                if state.state is JobState.FINISHING:
                    break
    assert (await jobs.get(job.name)).step("import").attempts == 1
