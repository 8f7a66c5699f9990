"""Domain values to messages of ``boardwright.api.jobs.v1`` and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.content import canonical_json, read_json
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.job import Job, Step, StepFailure, StepOutcome, StepProgress
from boardwright.jobs.step_api import Requirements
from boardwright.rpc.errors import InvalidArgument


def to_timestamp(time_us: int) -> Timestamp | None:
    """Return a timestamp; None (an absent field) for 0."""
    if not time_us:
        return None
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000)


def to_duration(seconds: float) -> Duration:
    """Return a duration."""
    micros = round(seconds * 1e6)
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def from_duration(duration: Duration) -> float:
    """Return seconds."""
    return duration.seconds + duration.nanos / 1e9


def to_json_text(value: Mapping[str, Any]) -> str:
    """Return a JSON object as canonical text."""
    return canonical_json(dict(value)).decode("utf-8")


def from_json_text(text: str, field: str) -> dict[str, Any]:
    """Read a JSON object; "" is {}.

    Raises:
        InvalidArgument: FIELD_INVALID.
    """
    try:
        value = read_json(text) if text else {}
        canonical_json(value)
    except ValueError as error:
        raise InvalidArgument("FIELD_INVALID", f"{field} is no JSON: {error}.", field=field) from error
    if not isinstance(value, dict):
        raise InvalidArgument("FIELD_INVALID", f"{field} must be a JSON object.", field=field)
    return value


def to_blob(blob: Blob) -> pb.Blob:
    """Return the message of a blob."""
    return pb.Blob(digest=blob.digest, size_bytes=blob.size_bytes, media_type=blob.media_type)


def from_blob(message: pb.Blob) -> Blob:
    """Read a blob."""
    return Blob(message.digest, message.size_bytes, message.media_type)


def to_blobs(blobs: Mapping[str, Blob]) -> dict[str, pb.Blob]:
    """Return named blobs as messages."""
    return {name: to_blob(blob) for name, blob in blobs.items()}


def from_blobs(messages: Mapping[str, pb.Blob]) -> dict[str, Blob]:
    """Read named blobs."""
    return {name: from_blob(message) for name, message in messages.items()}


def to_requirements(requires: Requirements) -> pb.Requirements:
    """Return the message of what a step requires."""
    return pb.Requirements(
        board=requires.board,
        toolchain=requires.toolchain,
        accelerator=requires.accelerator,
        memory_bytes=requires.memory_bytes,
        time_limit=to_duration(requires.time_limit_seconds),
    )


def from_requirements(message: pb.Requirements) -> Requirements:
    """Read what a step requires."""
    return Requirements(
        board=message.board,
        toolchain=message.toolchain,
        accelerator=message.accelerator,
        memory_bytes=message.memory_bytes,
        time_limit_seconds=from_duration(message.time_limit),
    )


def to_failure(failure: StepFailure | None) -> pb.StepFailure | None:
    """Return the message of a failure, if there is one."""
    if failure is None:
        return None
    return pb.StepFailure(reason=failure.reason, message=failure.message, deterministic=failure.deterministic)


def from_failure(message: pb.StepFailure) -> StepFailure:
    """Read a failure."""
    return StepFailure(message.reason, message.message, message.deterministic)


def from_progress(message: pb.StepProgress) -> StepProgress:
    """Read progress."""
    return StepProgress(message.done, message.total, message.what)


def from_completion(message: pb.CompleteStepRequest) -> StepOutcome:
    """Read what a completed step made.

    Raises:
        InvalidArgument: FIELD_INVALID.
    """
    return StepOutcome(
        outputs=from_blobs(message.outputs),
        values=from_json_text(message.values_json, "values_json"),
        warnings=tuple(message.warnings),
        record=message.record_digest,
    )


def to_step(step: Step) -> pb.Step:
    """Return the message of a step as it stands."""
    outcome = step.outcome or StepOutcome()
    return pb.Step(
        step=step.spec.step,
        kind=step.spec.kind,
        state=pb.Step.State.Value(f"STATE_{step.state.name}"),
        parameters_json=to_json_text(step.spec.parameters),
        inputs=to_blobs(step.inputs),
        outputs=to_blobs(outcome.outputs),
        values_json=to_json_text(outcome.values),
        warnings=outcome.warnings,
        progress=pb.StepProgress(done=step.progress.done, total=step.progress.total, what=step.progress.what),
        failure=to_failure(step.failure),
        cache_key=step.cache_key,
        cached=step.cached,
        record_digest=outcome.record,
        attempts=step.attempts,
        worker=step.worker,
        requires=to_requirements(step.spec.requires),
        start_time=to_timestamp(step.start_us),
        finish_time=to_timestamp(step.finish_us),
    )


def to_job(job: Job) -> pb.Job:
    """Return the message of a job as it stands."""
    return pb.Job(
        name=job.name,
        state=pb.Job.State.Value(f"STATE_{job.state.name}"),
        steps=[to_step(step) for step in job.steps],
        spec_json=to_json_text(job.spec),
        results=job.results,
        failure=to_failure(job.failure),
        creator=job.principal,
        create_time=to_timestamp(job.create_us),
        update_time=to_timestamp(job.update_us),
        finish_time=to_timestamp(job.finish_us),
        revision=job.revision,
        traceparent=job.trace,
        title=job.title,
    )
