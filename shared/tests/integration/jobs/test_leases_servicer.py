"""The Leases API as a worker sees it: permissions, grants, and calls that hang up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.api.jobs.v1 import jobs_pb2_grpc
from boardwright.database import Database
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.rpc.collection import JobCollection
from boardwright.jobs.rpc.convert import to_duration
from boardwright.jobs.service import JobService
from boardwright.jobs.step_api import Requirements
from boardwright.rpc.client import connect
from boardwright.rpc.errors import InvalidArgument, NotFound, from_rpc_error
from boardwright.rpc.grants import verify
from boardwright.rpc.names import NameTemplate
from boardwright.testing.job_server import GRANT_KEY, WORKER_TOKEN, serve_leases
from boardwright.testing.jobs import TEXT, SimulatedKeeper, SimulatedOwner, new_job, step

_NAMES = NameTemplate("projects/{project}/sampleJobs/{job}")


@pytest.fixture
def service(database: Database) -> JobService:
    return JobService(database, SimulatedOwner(), SimulatedKeeper())


@pytest.fixture
async def endpoint(service: JobService, tmp_path: Path) -> AsyncIterator[str]:
    async with serve_leases(service, tmp_path) as served:
        yield served


@pytest.fixture
async def stub(endpoint: str) -> AsyncIterator[jobs_pb2_grpc.LeasesStub]:
    async with connect(endpoint, token=WORKER_TOKEN) as channel:
        yield jobs_pb2_grpc.LeasesStub(channel)


def acquire(wait_seconds: float = 0) -> pb.AcquireLeaseRequest:
    return pb.AcquireLeaseRequest(worker="worker-1", wait=to_duration(wait_seconds))


async def test_a_lease_carries_a_grant_for_exactly_its_inputs(
    service: JobService, stub: jobs_pb2_grpc.LeasesStub
) -> None:
    job = await service.create(new_job(step("import", environment={"letters": "ascii"})))
    lease = (await stub.AcquireLease(acquire())).lease
    assert (lease.job, lease.step, lease.fence, lease.project) == (job.name, "import", 1, "projects/default")
    assert lease.environment == {"letters": "ascii"} and lease.parameters_json == '{"step":"import"}'
    assert (lease.heartbeat_interval.seconds, lease.duration.seconds) == (5, 60)
    grant = verify(GRANT_KEY, lease.grant_token)
    assert (grant.project, grant.read_digests) == ("default", frozenset({TEXT.digest}))
    assert grant.upload_prefix == f"{job.name}/steps/import/1"
    assert not (await stub.AcquireLease(acquire())).HasField("lease")


async def test_reports_over_the_wire_end_the_step(
    service: JobService, stub: jobs_pb2_grpc.LeasesStub
) -> None:
    job = await service.create(new_job(step("import"), step("other", parameters={"n": 1})))
    for _ in range(2):
        lease = (await stub.AcquireLease(acquire())).lease
        held = {"job": lease.job, "step": lease.step, "fence": lease.fence, "worker": "worker-1"}
        progress = pb.StepProgress(done=1, total=2, what="tracing")
        await stub.Heartbeat(pb.HeartbeatRequest(**held, progress=progress, log="line\n"))
        if lease.step == "import":
            blob = pb.Blob(digest="sha256:" + "a" * 64, size_bytes=3, media_type="text/plain")
            request = pb.CompleteStepRequest(**held, outputs={"text": blob}, values_json='{"top1":0.5}')
            await stub.CompleteStep(request)
            await stub.CompleteStep(request)
        else:
            failure = pb.StepFailure(reason="BUSY", message="busy", deterministic=False)
            assert (await stub.FailStep(pb.FailStepRequest(**held, failure=failure))).again
    now = await service.get(job.name)
    assert now.step("import").outcome is not None and now.step("import").outcome.values == {"top1": 0.5}
    assert await service.log(job.name, "import") == ("line\n", False)


async def test_wrong_requests_and_lost_leases_are_told_apart(
    service: JobService, stub: jobs_pb2_grpc.LeasesStub
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await stub.AcquireLease(pb.AcquireLeaseRequest())
    assert from_rpc_error(caught.value).reason == "FIELD_INVALID"
    await service.create(new_job(step("import")))
    lease = (await stub.AcquireLease(acquire())).lease
    request = pb.CompleteStepRequest(job=lease.job, step="import", fence=lease.fence, values_json="[1]")
    with pytest.raises(grpc.RpcError) as caught:
        await stub.CompleteStep(request)
    assert from_rpc_error(caught.value).reason == "FIELD_INVALID"
    with pytest.raises(grpc.RpcError) as caught:
        await stub.Heartbeat(pb.HeartbeatRequest(job=lease.job, step="import", fence=lease.fence + 1))
    assert from_rpc_error(caught.value).reason == "LEASE_LOST"


async def test_a_heartbeat_tells_of_a_cancelled_job_until_it_is_retried(
    service: JobService, stub: jobs_pb2_grpc.LeasesStub
) -> None:
    job = await service.create(new_job(step("import")))
    lease = (await stub.AcquireLease(acquire())).lease
    beat = pb.HeartbeatRequest(job=lease.job, step="import", fence=lease.fence, log="late words\n")
    await service.cancel(job.name)
    assert (await stub.Heartbeat(beat)).cancelled
    assert await service.log(job.name, "import") == ("", False)
    await service.retry(job.name)
    with pytest.raises(grpc.RpcError) as caught:
        await stub.Heartbeat(beat)
    assert from_rpc_error(caught.value).reason == "LEASE_LOST"


async def test_only_workers_lease(endpoint: str) -> None:
    async with connect(endpoint, token="another") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await jobs_pb2_grpc.LeasesStub(channel).AcquireLease(acquire())
    assert from_rpc_error(caught.value).reason == "TOKEN_UNKNOWN"


async def test_a_grant_opens_inputs_and_leases_nothing(
    service: JobService, endpoint: str, stub: jobs_pb2_grpc.LeasesStub
) -> None:
    for name in ("import", "other"):
        await service.create(new_job(step(name, parameters={"step": name})))
    grant = (await stub.AcquireLease(acquire())).lease.grant_token
    async with connect(endpoint, token=grant) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await jobs_pb2_grpc.LeasesStub(channel).AcquireLease(acquire())
    assert from_rpc_error(caught.value).reason == "PERMISSION_MISSING"


async def test_a_worker_that_hangs_up_leaves_no_lease_behind(
    service: JobService, stub: jobs_pb2_grpc.LeasesStub
) -> None:
    calls = [stub.AcquireLease(acquire(30)) for _ in range(5)]
    await asyncio.sleep(0.2)
    for call in calls:
        call.cancel()
    job = await service.create(new_job(step("import")))
    async with asyncio.timeout(20):
        while (lease := (await stub.AcquireLease(acquire(1))).lease).job != job.name:
            pass
    assert (await service.get(job.name)).step("import").attempts == 1
    assert lease.step == "import"


async def test_a_stopping_service_lets_waiting_workers_go(
    service: JobService, stub: jobs_pb2_grpc.LeasesStub
) -> None:
    upkeep = asyncio.ensure_future(service.run())
    call = stub.AcquireLease(acquire(30))
    await asyncio.sleep(0.1)
    upkeep.cancel()
    async with asyncio.timeout(20):
        assert not (await call).HasField("lease")


async def test_a_collection_lists_in_pages_newest_first(service: JobService, database: Database) -> None:
    collection = JobCollection(service, database, _NAMES)
    names = [(await service.create(new_job(step("import", parameters={"n": n})))).name for n in range(5)]
    await collection.cancel(pb.CancelJobRequest(name=names[1]))
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListJobsRequest(parent="projects/default", page_size=2, page_token=token)
        page = await collection.list(request)
        seen += [job.name for job in page.jobs]
        if not (token := page.next_page_token):
            break
    assert seen == names[::-1]
    request = pb.ListJobsRequest(parent="projects/default", filter='state = "STATE_CANCELLED"')
    assert [job.name for job in (await collection.list(request)).jobs] == [names[1]]
    assert not (await collection.list(pb.ListJobsRequest(parent="projects/other"))).jobs
    request = pb.ListJobsRequest(parent="projects/default", filter='stat = "cancelled"')
    with pytest.raises(InvalidArgument, match="state"):
        await collection.list(request)


async def test_a_page_of_long_jobs_is_cut_short(
    service: JobService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boardwright.jobs.storage.listing._PAGE_BYTES", 390)
    collection = JobCollection(service, database, _NAMES)
    names = [
        (await service.create(new_job(step("import", parameters={"words": "ü" * 15, "n": n})))).name
        for n in range(3)
    ]
    seen, request = [], pb.ListJobsRequest(parent="projects/default")
    for _ in names:
        page = await collection.list(request)
        seen.append([job.name for job in page.jobs])
        request.page_token = page.next_page_token
    assert seen == [[name] for name in reversed(names)] and not request.page_token


async def test_a_ready_step_says_what_it_waits_for(service: JobService, database: Database) -> None:
    collection = JobCollection(service, database, _NAMES)
    job = await service.create(new_job(step("build", requires=Requirements(toolchain="tensorrt"))))
    assert "none has asked" in (await collection.get(pb.GetJobRequest(name=job.name))).steps[0].progress.what
    await service.lease(Offer("worker-1"))
    told = (await collection.get(pb.GetJobRequest(name=job.name))).steps[0].progress.what
    assert told == "waiting for a worker that has the toolchain tensorrt"


async def test_a_collection_answers_for_its_jobs(service: JobService, database: Database) -> None:
    collection = JobCollection(service, database, _NAMES)
    job = await service.create(new_job(step("import")))
    got = await collection.get(pb.GetJobRequest(name=job.name))
    assert (got.state, got.title, got.creator) == (pb.Job.STATE_QUEUED, "a sample", "tester")
    assert got.steps[0].state == pb.Step.STATE_READY and got.steps[0].inputs["text"].digest == TEXT.digest
    cancelled = await collection.cancel(pb.CancelJobRequest(name=job.name, reason="wrong dataset"))
    assert cancelled.state == pb.Job.STATE_CANCELLED
    assert (cancelled.failure.reason, cancelled.failure.message) == ("CANCELLED", "wrong dataset")
    watched = [seen.state async for seen in collection.watch(pb.WatchJobRequest(name=job.name))]
    assert watched == [pb.Job.STATE_CANCELLED]
    assert (await collection.retry(pb.RetryJobRequest(name=job.name))).state == pb.Job.STATE_QUEUED
    assert not (await collection.get(pb.GetJobRequest(name=job.name))).HasField("failure")
    assert (await collection.log(pb.GetStepLogRequest(name=job.name, step="import"))).log == ""
    with pytest.raises(NotFound):
        await collection.get(pb.GetJobRequest(name="projects/default/sampleJobs/none"))
    with pytest.raises(InvalidArgument):
        await collection.get(pb.GetJobRequest(name="projects/default/otherJobs/none"))
