"""Rows to domain values and back; the only place that knows the JSON inside the columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from boardwright.content import canonical_json
from boardwright.database import Row
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.dag import JobState, OutputOf, StepSpec, StepState
from boardwright.jobs.domain.job import Job, Step, StepFailure, StepOutcome, StepProgress
from boardwright.jobs.step_api import Determinism, Requirements


def encode(value: Any) -> str:
    """Return canonical JSON as text.

    Raises:
        InvalidContent: the value has no canonical JSON.
    """
    return canonical_json(value).decode("utf-8")


def encode_blobs(blobs: Mapping[str, Blob]) -> str:
    """Return named blobs as canonical JSON."""
    return encode({name: blob.to_json() for name, blob in blobs.items()})


def step_row(job: str, project: str, position: int, spec: StepSpec) -> dict[str, Any]:
    """Return the columns of a newly declared step."""
    inputs = {
        name: {"blob": given.to_json()}
        if isinstance(given, Blob)
        else {"step": given.step, "output": given.output}
        for name, given in spec.inputs.items()
    }
    return {
        "job": job,
        "project": project,
        "step": spec.step,
        "position": position,
        "kind": spec.kind,
        "version": spec.version,
        "determinism": spec.determinism.value,
        "parameters": encode(dict(spec.parameters)),
        "inputs": encode(inputs),
        "environment": encode(dict(spec.environment)),
        "board": spec.requires.board,
        "toolchain": spec.requires.toolchain,
        "accelerator": spec.requires.accelerator,
        "memory_bytes": spec.requires.memory_bytes,
        "time_limit_us": round(spec.requires.time_limit_seconds * 1e6),
        "seed": spec.seed,
        "again": int(spec.again),
        "state": StepState.WAITING.value,
    }


def _read_input(value: Mapping[str, Any]) -> Blob | OutputOf:
    return Blob.from_json(value["blob"]) if "blob" in value else OutputOf(value["step"], value["output"])


def read_requirements(row: Row) -> Requirements:
    """Read what a step requires."""
    return Requirements(
        board=row["board"],
        toolchain=row["toolchain"],
        accelerator=row["accelerator"],
        memory_bytes=row["memory_bytes"],
        time_limit_seconds=row["time_limit_us"] / 1e6,
    )


def _read_spec(row: Row) -> StepSpec:
    return StepSpec(
        step=row["step"],
        kind=row["kind"],
        version=row["version"],
        determinism=Determinism(row["determinism"]),
        parameters=json.loads(row["parameters"]),
        inputs={name: _read_input(given) for name, given in json.loads(row["inputs"]).items()},
        environment=json.loads(row["environment"]),
        requires=read_requirements(row),
        seed=row["seed"],
        again=bool(row["again"]),
    )


def read_failure(text: str) -> StepFailure | None:
    """Read a failure column ("" is none)."""
    return StepFailure.from_json(json.loads(text)) if text else None


def read_step(row: Row) -> Step:
    """Read one row of the steps table."""
    progress = json.loads(row["progress"])
    return Step(
        job=row["job"],
        project=row["project"],
        spec=_read_spec(row),
        state=StepState(row["state"]),
        inputs={name: Blob.from_json(blob) for name, blob in json.loads(row["resolved"]).items()},
        cache_key=row["cache_key"],
        cached=bool(row["cached"]),
        attempts=row["attempts"],
        fence=row["fence"],
        worker=row["worker"],
        lease_expires_us=row["lease_expires_us"],
        progress=StepProgress(**progress),
        outcome=StepOutcome.from_json(json.loads(row["outcome"])) if row["outcome"] else None,
        failure=read_failure(row["failure"]),
        start_us=row["start_us"],
        finish_us=row["finish_us"],
    )


def read_job(row: Row, steps: Iterable[Row]) -> Job:
    """Read one row of the jobs table with the rows of its steps, in their order."""
    return Job(
        name=row["name"],
        project=row["project"],
        principal=row["principal"],
        spec=json.loads(row["spec"]),
        state=JobState(row["state"]),
        steps=tuple(read_step(step) for step in steps),
        title=row["title"],
        results=tuple(json.loads(row["results"])),
        failure=read_failure(row["failure"]),
        trace=row["trace"],
        revision=row["revision"],
        create_us=row["create_us"],
        update_us=row["update_us"],
        finish_us=row["finish_us"],
    )
