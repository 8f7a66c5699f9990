"""Jobs and steps as they stand: what storage gives out, and what a finished or failed step says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.dag import ENDED_JOBS, JobState, StepSpec, StepState


@dataclass(frozen=True, slots=True)
class StepFailure:
    """Why a step (or a job) failed; ``reason`` is stable, ``message`` says what to do next."""

    reason: str
    message: str
    deterministic: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that rows hold."""
        return {"reason": self.reason, "message": self.message, "deterministic": self.deterministic}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> StepFailure:
        """Read what ``to_json`` gave."""
        return StepFailure(value["reason"], value["message"], bool(value["deterministic"]))


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step that succeeded made. ``record`` is the digest of its in-toto statement ("" for none)."""

    outputs: Mapping[str, Blob] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    record: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that rows hold."""
        return {
            "outputs": {name: blob.to_json() for name, blob in self.outputs.items()},
            "values": dict(self.values),
            "warnings": list(self.warnings),
            "record": self.record,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> StepOutcome:
        """Read what ``to_json`` gave."""
        outputs = {name: Blob.from_json(blob) for name, blob in value["outputs"].items()}
        return StepOutcome(outputs, value["values"], tuple(value["warnings"]), value["record"])


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far a running step is: ``done`` of ``total`` (0: unknown) and what it is doing."""

    done: int = 0
    total: int = 0
    what: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it stands. Times are microseconds since the epoch, 0 where it has not happened."""

    job: str
    project: str
    spec: StepSpec
    state: StepState
    inputs: Mapping[str, Blob] = field(default_factory=dict)
    cache_key: str = ""
    cached: bool = False
    attempts: int = 0
    fence: int = 0
    worker: str = ""
    lease_expires_us: int = 0
    progress: StepProgress = field(default_factory=StepProgress)
    outcome: StepOutcome | None = None
    failure: StepFailure | None = None
    start_us: int = 0
    finish_us: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. ``revision`` grows with every change, progress included.

    ``name`` is the full resource name, ``title`` one line for people. ``spec`` is what was asked, ``results``
    are the names of the resources that were made: both belong to the service that owns the job. ``trace`` is
    the W3C traceparent it was created under.
    """

    name: str
    project: str
    principal: str
    spec: Mapping[str, Any]
    state: JobState
    steps: tuple[Step, ...]
    title: str = ""
    results: tuple[str, ...] = ()
    failure: StepFailure | None = None
    trace: str = ""
    revision: int = 1
    create_us: int = 0
    update_us: int = 0
    finish_us: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more (short of a retry)."""
        return self.state in ENDED_JOBS

    def step(self, step: str) -> Step:
        """Return the step of that id; KeyError if there is none."""
        for candidate in self.steps:
            if candidate.spec.step == step:
                return candidate
        raise KeyError(step)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to create; its steps are in any order. ``retry`` forgets remembered failures."""

    name: str
    project: str
    principal: str
    spec: Mapping[str, Any]
    steps: tuple[StepSpec, ...]
    title: str = ""
    trace: str = ""
    retry: bool = False
