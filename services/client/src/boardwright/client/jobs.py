"""Compile and build jobs: the same calls for both."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.client import references
from boardwright.client.connection import Connection, Stub, every_page
from boardwright.client.content import Content
from boardwright.client.progress import Progress, silent
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable

ENDED = (pb.Job.STATE_SUCCEEDED, pb.Job.STATE_FAILED, pb.Job.STATE_CANCELLED)
_RECONNECT_SECONDS = 30.0
_KINDS = {"compileJobs": "Compile", "buildJobs": "Build"}


class JobFailed(FailedPrecondition):
    """A job ended without success; `job` is how it ended, `reason` that of the step that failed."""

    def __init__(self, job: pb.Job) -> None:
        failed = next((step for step in job.steps if step.state == pb.Step.STATE_FAILED), None)
        cause = failed.failure if failed is not None else job.failure
        where = f" at {failed.step}" if failed is not None else ""
        if job.state == pb.Job.STATE_CANCELLED:
            super().__init__("JOB_CANCELLED", f"{job.title or job.name} was cancelled", job=job.name)
        else:
            super().__init__(
                cause.reason or "JOB_FAILED",
                f"{job.title or job.name} failed{where}: {cause.message or 'see `boardwright job logs`'}",
                job=job.name,
                step=failed.step if failed is not None else "",
            )
        self.job = job


@dataclass(frozen=True, slots=True)
class StepOutput:
    """A file that a step made, as a blob of the project."""

    step: str
    kind: str
    name: str
    digest: str
    size_bytes: int
    media_type: str


class Jobs:
    """`client.jobs`. A job is named by its full name, or its id where only one service has it."""

    def __init__(self, connection: Connection, content: Content, project: str) -> None:
        self._connection = connection
        self._content = content
        self._project = project

    def get(self, job: str) -> pb.Job:
        """A job with its steps. Raises: NotFound JOB_NOT_FOUND."""
        found: pb.Job = self._call("Get{}Job", job, pb.GetJobRequest)
        return found

    def list(self, *, kind: str = "", where: str = "", limit: int = 0) -> Iterator[pb.Job]:
        """Jobs, newest first; `kind` is "compile", "build", or empty for both (compile jobs come first).

        Raises:
            InvalidArgument: FILTER_INVALID, also for another kind.
        """
        if kind not in ("", *(title.lower() for title in _KINDS.values())):
            raise InvalidArgument("FILTER_INVALID", f"{kind!r} is no kind of job: use compile or build")
        for collection, title in _KINDS.items():
            if kind and title.lower() != kind:
                continue
            request = pb.ListJobsRequest(parent=f"projects/{self._project}", filter=where)
            stub = self._stub(collection)
            yield from every_page(getattr(stub, f"List{title}Jobs"), request, "jobs", limit)

    def cancel(self, job: str, reason: str = "") -> pb.Job:
        """Stop what runs and skip the rest; finished steps stay in the cache. Raises: NotFound."""
        ended: pb.Job = self._call("Cancel{}Job", job, pb.CancelJobRequest, reason=reason)
        return ended

    def retry(self, job: str, request_id: str = "") -> pb.Job:
        """Start the same job anew, forgetting failures. Raises: FailedPrecondition JOB_NOT_ENDED."""
        started: pb.Job = self._call("Retry{}Job", job, pb.RetryJobRequest, request_id=request_id)
        return started

    def logs(self, job: str, step: str) -> str:
        """What a step printed. Raises: NotFound JOB_NOT_FOUND, STEP_NOT_FOUND."""
        name = self.full_name(job)
        answer: pb.GetStepLogResponse = self._stub(name.split("/")[2]).GetStepLog(
            pb.GetStepLogRequest(name=name, step=step)
        )
        return ("…\n" if answer.truncated else "") + answer.log

    def outputs(self, job: str, step: str = "") -> builtins.list[StepOutput]:
        """The files that the steps of a job made, those from the cache included.

        Raises:
            NotFound: JOB_NOT_FOUND, STEP_NOT_FOUND.
        """
        found = self.get(job)
        steps = [held for held in found.steps if step in ("", held.step)]
        if not steps:
            names = ", ".join(held.step for held in found.steps)
            raise NotFound("STEP_NOT_FOUND", f"{found.name} has no step {step!r}; its steps are {names}")
        return [
            StepOutput(held.step, held.kind, name, blob.digest, blob.size_bytes, blob.media_type)
            for held in steps
            for name, blob in sorted(held.outputs.items())
        ]

    def download(
        self, job: str, folder: Path, *, step: str = "", file: str = "", progress: Progress = silent
    ) -> builtins.list[Path]:
        """Write what the steps of a job made to `folder/STEP/FILE`; returns the paths.

        Args:
            step: of this step alone.
            file: only files of this name.

        Raises:
            NotFound: JOB_NOT_FOUND, STEP_NOT_FOUND, OUTPUT_NOT_FOUND.
            InvalidArgument: OUTPUT_NAME_UNSAFE, a name that would lead out of the folder.
        """
        outputs = self.outputs(job, step)
        wanted = [output for output in outputs if file in ("", output.name)]
        if not wanted:
            there = ", ".join(f"{output.step}/{output.name}" for output in outputs) or "none"
            raise NotFound("OUTPUT_NOT_FOUND", f"{job} made no file {file!r}; there are {there}".strip())
        paths = []
        for output in wanted:
            for part in (output.step, output.name):
                if part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part:
                    raise InvalidArgument("OUTPUT_NAME_UNSAFE", f"{part!r} is no name for a file here")
            path = folder / output.step / output.name
            path.parent.mkdir(parents=True, exist_ok=True)
            paths.append(self._content.download(output.digest, path, progress=progress))
        return paths

    def watch(self, job: str) -> Iterator[pb.Job]:
        """The job as it stands, then after each change until it has ended.

        A broken connection is made again for up to 30 s; nothing is missed.

        Raises:
            NotFound: JOB_NOT_FOUND.
            Unavailable: the service stayed away.
        """
        name = self.full_name(job)
        collection = name.split("/")[2]
        revision, lost_at = 0, 0.0
        while True:
            request = pb.WatchJobRequest(name=name, revision=revision)
            try:
                for current in self._stub(collection).stream(f"Watch{_KINDS[collection]}Job", request):
                    revision, lost_at = current.revision, 0.0
                    yield current
                    if current.state in ENDED:
                        return
                current = self.get(name)  # the stream ended first: the last state may be in between
                if current.state in ENDED:
                    if current.revision > revision:
                        yield current
                    return
            except Unavailable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _RECONNECT_SECONDS:
                    raise
                time.sleep(0.3)

    def wait(
        self,
        job: str,
        *,
        progress: Progress = silent,
        on_change: Callable[[pb.Job], None] | None = None,
    ) -> pb.Job:
        """Wait until a job has ended.

        Raises:
            JobFailed: it failed or was cancelled.
            NotFound, Unavailable: as `watch`.
        """
        current: pb.Job | None = None
        for current in self.watch(job):
            if on_change is not None:
                on_change(current)
            progress(*summarize(current))
        if current is None or current.state != pb.Job.STATE_SUCCEEDED:
            raise JobFailed(current or pb.Job(name=job))
        return current

    def full_name(self, job: str) -> str:
        """The full name of a job.

        Raises:
            InvalidArgument: REFERENCE_INVALID.
        """
        if references.is_full(job):
            return job
        kind, slash, _ = job.partition("/")
        if slash and kind in _KINDS:
            return f"projects/{self._project}/{job}"
        raise InvalidArgument(
            "REFERENCE_INVALID",
            f"{job!r} names no job: write compileJobs/ID or buildJobs/ID as `boardwright job ls` shows them",
        )

    def _stub(self, collection: str) -> Stub:
        return self._connection.compiler if collection == "compileJobs" else self._connection.builder

    def _call(self, rpc: str, job: str, request: Any, **fields: str) -> Any:
        name = self.full_name(job)
        collection = name.split("/")[2]
        if collection not in _KINDS:
            raise InvalidArgument("REFERENCE_INVALID", f"{name} is no job")
        return getattr(self._stub(collection), rpc.format(_KINDS[collection]))(request(name=name, **fields))


def summarize(job: pb.Job) -> tuple[int, int, str]:
    """How far a job is, in thousandths of all its steps, and what runs now."""
    ended = (pb.Step.STATE_SUCCEEDED, pb.Step.STATE_FAILED, pb.Step.STATE_SKIPPED, pb.Step.STATE_CANCELLED)
    done, running, waiting = 0.0, "", ""
    for step in job.steps:
        if step.state in ended:
            done += 1
        elif step.state == pb.Step.STATE_RUNNING:
            part = step.progress
            done += part.done / part.total if part.total else 0.0
            running = running or f"{step.step}: {part.what}" if part.what else running or step.step
        elif step.state == pb.Step.STATE_READY:
            waiting = waiting or step.progress.what
    if job.state in ENDED:
        return int(1000 * done), 1000 * len(job.steps), ""
    return int(1000 * done), 1000 * len(job.steps), running or waiting or "waiting for a worker"
