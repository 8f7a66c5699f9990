"""A small owner of jobs, for tests of services, leases and workers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from boardwright.database import Transaction
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.dag import OutputOf, StepSpec
from boardwright.jobs.domain.job import Job, NewJob
from boardwright.rpc.errors import FailedPrecondition

MIGRATIONS = "boardwright.testing:job_migrations"
TEXT = Blob("sha256:" + "1" * 64, 6, "text/plain")

_numbers = itertools.count(1)


class SimulatedOwner:
    """Keeps what it is told.

    ``failures`` are raised, one a call, before ``finish`` succeeds; ``blocked`` holds up calls (``reached``).
    """

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str]] = []
        self.finished: list[Job] = []
        self.failures: list[Exception] = []
        self.blocked: asyncio.Event | None = None
        self.reached = asyncio.Event()

    def record(self, tx: Transaction, job: Job) -> None:
        """Note the state (a rolled-back transaction's too: tests look at the set)."""
        self.recorded.append((job.name, job.state.value))

    async def finish(self, job: Job) -> Sequence[str]:
        """Return one resource name a step."""
        self.reached.set()
        if self.blocked is not None:
            await self.blocked.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.finished.append(job)
        return [f"projects/default/samples/{step.spec.step}" for step in job.steps]


class SimulatedKeeper:
    """Keeps references in memory; ``missing`` digests are not there."""

    def __init__(self) -> None:
        self.references: dict[str, list[str]] = {}
        self.missing: set[str] = set()

    async def keep(self, project: str, reference: str, digests: Sequence[str]) -> None:
        """Hold the reference, or refuse as the registry would."""
        if missing := self.missing & set(digests):
            raise FailedPrecondition("BLOB_NOT_FOUND", f"not there: {', '.join(sorted(missing))}.")
        self.references[f"projects/{project}/references/{reference}"] = list(digests)


class SettableClock:
    """Microseconds that only tests move."""

    def __init__(self, start_us: int = 1_700_000_000_000_000) -> None:
        self.now_us = start_us

    def __call__(self) -> int:
        return self.now_us

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now_us += round(seconds * 1e6)


def step(name: str, *needs: str, kind: str = "sample/upper", **changes: Any) -> StepSpec:
    """Return a step that uses the output ``text`` of each needed step, or else the blob ``TEXT``."""
    inputs: dict[str, Blob | OutputOf] = {needed: OutputOf(needed, "text") for needed in needs}
    given: dict[str, Any] = {"parameters": {"step": name}, "inputs": inputs or {"text": TEXT}}
    return StepSpec(name, kind, "1", **{**given, **changes})


def new_job(*steps: StepSpec, retry: bool = False, project: str = "default") -> NewJob:
    """Return a job of these steps under a name of its own."""
    name = f"projects/{project}/sampleJobs/job-{next(_numbers)}"
    return NewJob(name, project, "tester", {"sample": True}, steps, title="a sample", retry=retry)
