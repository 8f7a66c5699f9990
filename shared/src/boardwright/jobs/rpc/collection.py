"""What every jobs collection answers; a service's own servicer calls these with its requests.

async def GetCompileJob(self, request, context):
    return await self._collection.get(request)

async def WatchCompileJob(self, request, context):
    async for job in self._collection.watch(request):
        yield job
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.database import Database
from boardwright.jobs.domain.job import Job
from boardwright.jobs.rpc.convert import to_job
from boardwright.jobs.service import JobService
from boardwright.jobs.storage.listing import list_jobs
from boardwright.rpc.names import NameTemplate

_PROJECT = NameTemplate("projects/{project}")


class JobCollection:
    """Standard methods over one JobService; ``template`` is its jobs' ``projects/{project}/…/{job}``."""

    def __init__(self, jobs: JobService, database: Database, template: NameTemplate) -> None:
        self._jobs = jobs
        self._database = database
        self._template = template

    async def get(self, request: pb.GetJobRequest) -> pb.Job:
        """Return the job. Raises: InvalidArgument FIELD_INVALID, NotFound JOB_NOT_FOUND."""
        return self._told(await self._jobs.get(self._checked(request.name)))

    async def list(self, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        """Return a page of the project's jobs, newest first.

        Raises:
            InvalidArgument: FIELD_INVALID, FILTER_INVALID, PAGE_TOKEN_MISMATCH.
        """
        (project,) = _PROJECT.parse(request.parent, "parent")
        jobs, token = await self._database.read(
            lambda tx: list_jobs(tx, project, request.page_size, request.page_token, request.filter)
        )
        return pb.ListJobsResponse(jobs=[self._told(job) for job in jobs], next_page_token=token)

    async def cancel(self, request: pb.CancelJobRequest) -> pb.Job:
        """Cancel the job; one that has ended stays. Raises: InvalidArgument FIELD_INVALID, NotFound."""
        return to_job(await self._jobs.cancel(self._checked(request.name), request.reason))

    async def retry(self, request: pb.RetryJobRequest) -> pb.Job:
        """Run again what did not succeed; needs no ``request_id``, a second retry finds it running or done.

        Raises:
            InvalidArgument: FIELD_INVALID.
            NotFound: JOB_NOT_FOUND.
            FailedPrecondition: JOB_NOT_ENDED.
        """
        return to_job(await self._jobs.retry(self._checked(request.name)))

    async def watch(self, request: pb.WatchJobRequest) -> AsyncIterator[pb.Job]:
        """Yield the job now and after each change until it has ended. Raises: NotFound JOB_NOT_FOUND."""
        async for job in self._jobs.watch(self._checked(request.name), request.revision):
            yield self._told(job)

    async def log(self, request: pb.GetStepLogRequest) -> pb.GetStepLogResponse:
        """Return the end of a step's log. Raises: NotFound JOB_NOT_FOUND, STEP_NOT_FOUND."""
        log, truncated = await self._jobs.log(self._checked(request.name), request.step)
        return pb.GetStepLogResponse(log=log, truncated=truncated)

    def _told(self, job: Job) -> pb.Job:
        """Return the job's message; a ready step's progress says what it waits for."""
        told = to_job(job)
        for step, message in zip(job.steps, told.steps, strict=True):
            if reason := self._jobs.waiting_reason(step):
                message.progress.what = reason
        return told

    def _checked(self, name: str) -> str:
        self._template.parse(name)
        return name
