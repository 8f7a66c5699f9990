"""A builder over one database, with simulated neighbours and a worker that tests play."""

from collections.abc import Callable
from typing import Any

import pytest

from boardwright.builder.catalogue import shipped_catalogue
from boardwright.builder.ports import BuildOrder
from boardwright.builder.service import BuilderService, Call
from boardwright.builder.settings import MIGRATIONS
from boardwright.builder.storage.journal import add_audit_event
from boardwright.builder.workers import WorkersSeen
from boardwright.content.oci import (
    ENGINE_MEDIA_TYPE,
    GOLDEN_MEDIA_TYPE,
    GRAPH_MEDIA_TYPE,
    PIN_MEDIA_TYPE,
)
from boardwright.database import Database
from boardwright.database.outbox import Outbox
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.job import Job, StepOutcome
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.service import JobService
from boardwright.testing.database import database_fixture
from boardwright.testing.jobs import SimulatedKeeper

database = database_fixture("builder", MIGRATIONS)
ALICE = Call("alice")
X86_PIN = {
    "schema": "hardware-pin/1",
    "board": "x86-64",
    "architecture": "x86_64",
    "runtime": "onnxruntime",
    "runtime_version": "1.31.1",
    "cpu_features": ["vnni"],
}


class Stack:
    """A builder over one database, its worker played by the test."""

    def __init__(self, database: Database, clock: list[float], registry: Any, datasets: Any) -> None:
        self.registry = registry
        self.datasets = datasets
        self.database = database
        self.workers = WorkersSeen("x86-64", clock=lambda: clock[0])
        self.builder = BuilderService(
            database,
            Outbox(database),
            add_audit_event,
            self.registry,
            self.datasets,
            shipped_catalogue,
            self.workers,
        )
        self.jobs = JobService(database, self.builder, SimulatedKeeper())
        self.builder.attach(self.jobs)

    async def build(self, board: str = "x86-64", call: Call = ALICE, **order: Any) -> Job:
        variant = order.pop("variant", None) or self.registry.add_variant()
        return await self.builder.create_build_job(call, BuildOrder("default", variant, board, **order))

    async def work(self, outcome: StepOutcome) -> Job:
        """Lease the next step and complete it; returns the job before it is finished."""
        offer = Offer(
            "w",
            frozenset({"build/build", "build/measure"}),
            frozenset({"x86-64"}),
            frozenset({"onnxruntime", "openvino", "ort-format"}),
        )
        taken = await self.jobs.lease(offer)
        assert taken is not None, "no step was ready"
        step, job = taken
        await self.jobs.complete(job.name, step.spec.step, step.fence, outcome)
        return await self.jobs.get(job.name)


@pytest.fixture
def clock() -> list[float]:
    """Return seconds that the test moves."""
    return [0.0]


@pytest.fixture
async def stack(
    database: Database, clock: list[float], make_registry: Callable[[], Any], datasets: Any
) -> Stack:
    """Return a builder with simulated neighbours."""
    return Stack(database, clock, make_registry(), datasets)


def blob(letter: str, media_type: str) -> Blob:
    return Blob("sha256:" + letter * 64, 100, media_type)


def built(board: str = "x86-64", model: str = "model.onnx", record: str = "9") -> StepOutcome:
    """Return what build/build gives."""
    media_type = GRAPH_MEDIA_TYPE if model == "model.onnx" else ENGINE_MEDIA_TYPE
    pin = {**X86_PIN, "board": board}
    return StepOutcome(
        {
            "golden.npz": blob("c", GOLDEN_MEDIA_TYPE),
            model: blob("b", media_type),
            "pin.json": blob("d", PIN_MEDIA_TYPE),
        },
        {
            "board": board,
            "entry": model,
            "files": [model],
            "toolchain": "onnxruntime",
            "toolchain_version": "1.31.1",
            "runtime_settings": {"graph_optimization": "all"},
            "model_size_bytes": 100,
            "pin": pin,
            "report": {"supported": True},
        },
        ("a warning",),
        "sha256:" + record * 64,
    )
