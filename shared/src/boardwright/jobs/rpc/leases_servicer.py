"""The Leases API over a JobService: what workers call. The compiler and the builder both serve it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.api.jobs.v1 import jobs_pb2_grpc
from boardwright.jobs.domain.dag import StepState
from boardwright.jobs.domain.job import Job, Step
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.rpc import convert
from boardwright.jobs.service import JobService
from boardwright.rpc.auth import Permission, permits
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.grants import Grant, mint

_MAX_WAIT_SECONDS = 30.0
_GRANT_SECONDS = 3600.0
_WORKERS = permits("admin", worker=True)

PERMISSIONS: dict[str, Permission] = {
    "AcquireLease": replace(_WORKERS, waits=True),
    **dict.fromkeys(("Heartbeat", "CompleteStep", "FailStep", "ReturnLease"), _WORKERS),
}
"""Workers, services and administrators of every project may lease; a grant opens its inputs alone."""


class LeasesServicer(jobs_pb2_grpc.LeasesServicer):
    """Serves one JobService's steps; grants are signed with ``grant_key``."""

    def __init__(self, jobs: JobService, grant_key: str) -> None:
        self._jobs = jobs
        self._grant_key = grant_key

    async def AcquireLease(self, request: pb.AcquireLeaseRequest, context: Any) -> pb.AcquireLeaseResponse:
        """See jobs.proto."""
        if not request.worker:
            raise InvalidArgument("FIELD_INVALID", "worker must name the worker.", field="worker")
        offer = Offer(
            worker=request.worker,
            kinds=frozenset(request.kinds),
            boards=frozenset(request.boards),
            toolchains=frozenset(request.toolchains),
            accelerators=frozenset(request.accelerators),
            memory_bytes=request.memory_bytes or Offer("").memory_bytes,
        )
        wait_seconds = min(convert.from_duration(request.wait), _MAX_WAIT_SECONDS)
        gone = False
        taking = asyncio.ensure_future(self._jobs.lease(offer, wait_seconds, lambda: not gone))
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            # The worker hung up. What is leased in this very moment must not wait for its expiry.
            gone = True
            taking.add_done_callback(self._return_unseen)
            self._jobs.wake()
            raise
        if taken is None:
            return pb.AcquireLeaseResponse()
        return pb.AcquireLeaseResponse(lease=self._to_lease(*taken))

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        """See jobs.proto."""
        progress = convert.from_progress(request.progress)
        step = await self._jobs.heartbeat(request.job, request.step, request.fence, progress, request.log)
        if step.state is StepState.CANCELLED:
            return pb.HeartbeatResponse(cancelled=True)
        elapsed_seconds = time.time() - step.start_us / 1e6
        return pb.HeartbeatResponse(
            expire_time=convert.to_timestamp(step.lease_expires_us),
            grant_token=self._grant(step) if elapsed_seconds > _GRANT_SECONDS / 2 else "",
        )

    async def CompleteStep(self, request: pb.CompleteStepRequest, context: Any) -> pb.CompleteStepResponse:
        """See jobs.proto."""
        outcome = convert.from_completion(request)
        await self._jobs.complete(request.job, request.step, request.fence, outcome, request.log)
        return pb.CompleteStepResponse()

    async def FailStep(self, request: pb.FailStepRequest, context: Any) -> pb.FailStepResponse:
        """See jobs.proto."""
        failure = convert.from_failure(request.failure)
        again = await self._jobs.fail(request.job, request.step, request.fence, failure, request.log)
        return pb.FailStepResponse(again=again)

    async def ReturnLease(self, request: pb.ReturnLeaseRequest, context: Any) -> pb.ReturnLeaseResponse:
        """See jobs.proto."""
        await self._jobs.give_back(request.job, request.step, request.fence)
        return pb.ReturnLeaseResponse()

    def _return_unseen(self, taking: asyncio.Future[tuple[Step, Job] | None]) -> None:
        if taking.cancelled() or taking.exception() is not None or (taken := taking.result()) is None:
            return
        step = taken[0]
        returning = asyncio.ensure_future(self._jobs.give_back(step.job, step.spec.step, step.fence))
        # A failure here is harmless: the lease then runs out by itself.
        returning.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _grant(self, step: Step) -> str:
        grant = Grant(
            principal=step.worker,
            project=step.project,
            read_digests=frozenset(blob.digest for blob in step.inputs.values()),
            upload_prefix=f"{step.job}/steps/{step.spec.step}/{step.fence}",
            expires_at=time.time() + _GRANT_SECONDS,
        )
        return mint(self._grant_key, grant)

    def _to_lease(self, step: Step, job: Job) -> pb.Lease:
        return pb.Lease(
            job=step.job,
            step=step.spec.step,
            fence=step.fence,
            kind=step.spec.kind,
            version=step.spec.version,
            parameters_json=convert.to_json_text(step.spec.parameters),
            inputs=convert.to_blobs(step.inputs),
            seed=step.spec.seed,
            requires=convert.to_requirements(step.spec.requires),
            cache_key=step.cache_key,
            grant_token=self._grant(step),
            project=f"projects/{step.project}",
            expire_time=convert.to_timestamp(step.lease_expires_us),
            heartbeat_interval=convert.to_duration(self._jobs.policy.heartbeat_seconds),
            duration=convert.to_duration(self._jobs.policy.duration_seconds),
            traceparent=job.trace,
            environment=dict(step.spec.environment),
        )
