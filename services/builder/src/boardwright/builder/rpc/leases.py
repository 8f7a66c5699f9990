"""The Leases API, noting on the way what the workers offer."""

from __future__ import annotations

from typing import Any

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.builder.workers import WorkersSeen
from boardwright.jobs.rpc.leases_servicer import LeasesServicer
from boardwright.jobs.service import JobService


class NotingLeasesServicer(LeasesServicer):
    """Serves leases; boards and toolchains that are offered count as present for a while."""

    def __init__(self, jobs: JobService, grant_key: str, workers: WorkersSeen) -> None:
        super().__init__(jobs, grant_key)
        self._workers = workers

    async def AcquireLease(self, request: pb.AcquireLeaseRequest, context: Any) -> pb.AcquireLeaseResponse:
        """See jobs.proto."""
        self._workers.note(request.boards, request.toolchains)
        return await super().AcquireLease(request, context)
