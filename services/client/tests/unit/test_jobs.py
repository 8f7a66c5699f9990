from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.client.jobs import JobFailed, Jobs, summarize
from boardwright.rpc.errors import InvalidArgument, Unavailable

NAME = "projects/p/compileJobs/1"


class Compiler:
    """Answers watches with scripted streams, each ending or breaking as told."""

    def __init__(self, *streams: list[Any]) -> None:
        self.streams = list(streams)
        self.revisions: list[int] = []

    def stream(self, rpc: str, request: pb.WatchJobRequest) -> Iterator[pb.Job]:
        assert rpc == "WatchCompileJob"
        self.revisions.append(request.revision)
        for item in self.streams.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item

    def GetCompileJob(self, request: pb.GetJobRequest) -> pb.Job:
        return pb.Job(name=request.name, state=pb.Job.STATE_RUNNING, revision=1)


class Connection:
    def __init__(self, compiler: Compiler) -> None:
        self.compiler = compiler


def _job(revision: int, state: Any = pb.Job.STATE_RUNNING, **fields: Any) -> pb.Job:
    return pb.Job(name=NAME, revision=revision, state=state, **fields)


def _jobs(compiler: Compiler) -> Jobs:
    return Jobs(Connection(compiler), None, "p")  # type: ignore[arg-type]


def test_a_broken_watch_goes_on_from_the_last_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boardwright.client.jobs.time.sleep", lambda seconds: None)
    compiler = Compiler(
        [_job(1), _job(4), Unavailable("SERVICE_UNREACHABLE", "gone")],
        [_job(6)],
        [_job(9, pb.Job.STATE_SUCCEEDED)],
    )
    seen = [job.revision for job in _jobs(compiler).watch(NAME)]
    assert seen == [1, 4, 6, 9]
    assert compiler.revisions == [0, 4, 6]


def test_a_service_that_stays_away_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("boardwright.client.jobs.time.sleep", lambda seconds: None)
    monkeypatch.setattr("boardwright.client.jobs.time.monotonic", lambda: next(clock))
    compiler = Compiler(*([Unavailable("SERVICE_UNREACHABLE", "gone")] for _ in range(9)))
    with pytest.raises(Unavailable):
        list(_jobs(compiler).watch(NAME))


def test_a_failed_job_tells_the_step_and_its_reason() -> None:
    step = pb.Step(
        step="import",
        state=pb.Step.STATE_FAILED,
        failure=pb.StepFailure(reason="CHECKPOINT_REFUSED", message="it names os.system"),
    )
    compiler = Compiler([_job(3, pb.Job.STATE_FAILED, steps=[step], title="digits@1 by default")])
    with pytest.raises(
        JobFailed, match=r"digits@1 by default failed at import: it names os\.system"
    ) as caught:
        _jobs(compiler).wait(NAME)
    assert caught.value.reason == "CHECKPOINT_REFUSED"
    assert caught.value.code == "FAILED_PRECONDITION"


def test_progress_counts_the_steps_and_the_running_step_s_share() -> None:
    steps = [
        pb.Step(step="import", state=pb.Step.STATE_SUCCEEDED),
        pb.Step(
            step="quantize",
            state=pb.Step.STATE_RUNNING,
            progress=pb.StepProgress(done=25, total=100, what="calibrating"),
        ),
    ]
    assert summarize(_job(1, steps=steps)) == (1250, 2000, "quantize: calibrating")
    assert summarize(_job(1, steps=steps[:1])) == (1000, 1000, "waiting for a worker")
    assert summarize(_job(1, pb.Job.STATE_SUCCEEDED, steps=steps[:1])) == (1000, 1000, "")


def test_a_job_s_name_says_whose_it_is() -> None:
    jobs = _jobs(Compiler())
    assert jobs.full_name("buildJobs/7") == "projects/p/buildJobs/7"
    assert jobs.full_name(NAME) == NAME
    with pytest.raises(InvalidArgument, match="compileJobs/ID"):
        jobs.full_name("7")


def test_a_kind_of_job_that_there_is_not_is_no_empty_list() -> None:
    jobs = Jobs(Connection(Compiler()), None, "p")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="use compile or build"):
        next(jobs.list(kind="builds"))
