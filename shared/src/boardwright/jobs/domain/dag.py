"""A job's DAG of steps: what is declared, what is ready, and how the whole stands.

Rules:

- A step is ready once every step whose output it uses has succeeded.
- A step that failed or was cancelled skips everything that depends on it; independent steps go on, their
  results stay in the cache.
- A job has ended its steps once none is waiting, ready or running.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.step_api import Determinism, Requirements

_STEP_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
MAX_STEPS = 1000


class InvalidDag(ValueError):
    """The declared steps are no DAG; ``reason`` is stable, the message names the step."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class OutputOf:
    """An input that another step of the same job makes."""

    step: str
    output: str


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One declared step. ``again`` runs it even if a result is cached (a new measurement)."""

    step: str
    kind: str
    version: str
    determinism: Determinism = Determinism.PURE
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Blob | OutputOf] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    requires: Requirements = field(default_factory=Requirements)
    seed: int = 0
    again: bool = False

    @property
    def needs(self) -> frozenset[str]:
        """The steps whose outputs this one uses."""
        return frozenset(given.step for given in self.inputs.values() if isinstance(given, OutputOf))


class StepState(StrEnum):
    """Where a step is."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


ENDED_STEPS = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED})


class JobState(StrEnum):
    """Where a job is. ``FINISHING``: all steps succeeded, the owner records what they made."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHING = "finishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED_JOBS = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


def order(steps: Sequence[StepSpec]) -> list[StepSpec]:
    """Return the steps so that each comes after those it needs; declared order where free.

    Raises:
        InvalidDag: NO_STEPS, TOO_MANY_STEPS, STEP_ID_INVALID, STEP_ID_REPEATED, STEP_UNKNOWN (an input of a
            step that is not there; the nearest name is told) or STEP_CYCLE.
    """
    if not steps:
        raise InvalidDag("NO_STEPS", "a job needs at least one step.")
    if len(steps) > MAX_STEPS:
        raise InvalidDag("TOO_MANY_STEPS", f"{len(steps)} steps; a job may have {MAX_STEPS}.")
    known: dict[str, StepSpec] = {}
    for spec in steps:
        if not _STEP_ID.fullmatch(spec.step):
            raise InvalidDag("STEP_ID_INVALID", f"the step id {spec.step!r} must be like 'quantize-1'.")
        if spec.step in known:
            raise InvalidDag("STEP_ID_REPEATED", f"the step id {spec.step!r} is used twice.")
        known[spec.step] = spec
    for spec in steps:
        for missing in sorted(spec.needs - known.keys()):
            near = difflib.get_close_matches(missing, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise InvalidDag("STEP_UNKNOWN", f"step {spec.step!r} uses the unknown step {missing!r}{hint}")
    ordered: dict[str, StepSpec] = {}
    left = list(steps)
    while left:
        free = [spec for spec in left if spec.needs <= ordered.keys()]
        if not free:
            names = ", ".join(spec.step for spec in left)
            raise InvalidDag("STEP_CYCLE", f"these steps wait for one another: {names}.")
        ordered.update((spec.step, spec) for spec in free)
        left = [spec for spec in left if spec.step not in ordered]
    return list(ordered.values())


def newly_ready(steps: Sequence[StepSpec], states: Mapping[str, StepState]) -> list[StepSpec]:
    """Return the waiting steps whose needs have all succeeded."""
    return [
        spec
        for spec in steps
        if states[spec.step] is StepState.WAITING
        and all(states[needed] is StepState.SUCCEEDED for needed in spec.needs)
    ]


def to_skip(steps: Sequence[StepSpec], states: Mapping[str, StepState]) -> list[str]:
    """Return the waiting steps that can never run, because something they need did not succeed."""
    hopeless = {StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED}
    known = dict(states)
    skipped: list[str] = []
    for spec in order(steps):
        if known[spec.step] is StepState.WAITING and any(known[needed] in hopeless for needed in spec.needs):
            known[spec.step] = StepState.SKIPPED
            skipped.append(spec.step)
    return skipped


def resolve_inputs(spec: StepSpec, outputs: Mapping[str, Mapping[str, Blob]]) -> dict[str, Blob]:
    """Return the step's inputs as blobs; ``outputs`` holds what the finished steps made.

    Raises:
        InvalidDag: OUTPUT_UNKNOWN, when a finished step made no output of that name.
    """
    resolved: dict[str, Blob] = {}
    for name, given in spec.inputs.items():
        if isinstance(given, Blob):
            resolved[name] = given
            continue
        made = outputs[given.step]
        if given.output not in made:
            there = ", ".join(sorted(made)) or "none"
            raise InvalidDag(
                "OUTPUT_UNKNOWN",
                f"step {spec.step!r} needs the output {given.output!r} of {given.step!r}, "
                f"which made: {there}.",
            )
        resolved[name] = made[given.output]
    return resolved


def job_state(states: Mapping[str, StepState]) -> JobState:
    """Return how a job stands by its steps alone."""
    held = set(states.values())
    if not held <= ENDED_STEPS:
        return JobState.QUEUED if held <= {StepState.WAITING, StepState.READY} else JobState.RUNNING
    if StepState.FAILED in held:
        return JobState.FAILED
    if held & {StepState.CANCELLED, StepState.SKIPPED}:
        return JobState.CANCELLED
    return JobState.FINISHING
