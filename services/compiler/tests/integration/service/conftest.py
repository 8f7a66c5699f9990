"""A compiler on a real database, with the other services simulated behind its ports."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from boardwright.compiler.app import MIGRATIONS
from boardwright.compiler.domain.passes import PASSES
from boardwright.compiler.domain.plan import Given
from boardwright.compiler.domain.profiles import BoardProfile
from boardwright.compiler.errors import dataset_not_sealed
from boardwright.compiler.ports import (
    FileOfVersion,
    KnownVariant,
    NewMeasurement,
    NewVariant,
    SealedDataset,
    StepRecord,
    Version,
)
from boardwright.compiler.publishing import Publisher
from boardwright.compiler.service import CompileRequest, CompilerService
from boardwright.compiler.storage.journal import SqlJournal
from boardwright.content import Digest
from boardwright.database import Database
from boardwright.database.outbox import Outbox
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.job import Job, StepFailure, StepOutcome
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.service import JobService
from boardwright.rpc.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from boardwright.testing.database import database_fixture
from boardwright.testing.jobs import SettableClock, SimulatedKeeper

database = database_fixture("compiler", MIGRATIONS)

VERSION = "projects/default/models/digits/versions/3"
PACK = {"digest": "sha256:" + "d" * 64, "size": 30}


@dataclass
class SimulatedRegistry:
    """The registry in memory: idempotent by request id, immutable, and away on demand."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    specs: dict[str, tuple[str, str]] = field(default_factory=dict)
    variants: dict[str, NewVariant] = field(default_factory=dict)
    measurements: dict[str, NewMeasurement] = field(default_factory=dict)
    lineage: dict[str, StepRecord] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    calls_until_away: int | None = None

    def put(self, data: bytes, media_type: str = "application/json") -> Blob:
        """Store content."""
        digest = str(Digest.of(data))
        self.blobs[digest] = data
        return Blob(digest, len(data), media_type)

    def _count(self) -> None:
        if self.calls_until_away is not None:
            if self.calls_until_away <= 0:
                raise Unavailable("SERVICE_UNAVAILABLE", "the registry is away; try again.")
            self.calls_until_away -= 1

    async def get_version(self, name: str, principal: str) -> Version:
        self._count()
        if name not in self.versions:
            raise NotFound("VERSION_NOT_FOUND", f"there is no version {name}.")
        return self.versions[name]

    async def read(self, project: str, digest: str, principal: str) -> bytes:
        self._count()
        return self.blobs[digest]

    async def fix_specs(self, version: str, input_json: str, output_json: str, principal: str) -> None:
        self._count()
        if self.specs.setdefault(version, (input_json, output_json)) != (input_json, output_json):
            raise FailedPrecondition("SPEC_FIXED", "another spec is already fixed.")

    async def find_variant(self, name: str, principal: str) -> KnownVariant | None:
        self._count()
        new = self.variants.get(name)
        return None if new is None else KnownVariant(new.graph.content.digest, new.quantization_profile)

    async def create_variant(self, version: str, new: NewVariant, request_id: str, principal: str) -> str:
        self._count()
        name = f"{version}/variants/{new.variant}"
        if request_id in self.requests:
            return self.requests[request_id]
        if name in self.variants:
            raise AlreadyExists("VARIANT_EXISTS", "another graph is registered under this id.")
        self.variants[name] = new
        self.requests[request_id] = name
        return name

    async def create_measurement(
        self, parent: str, new: NewMeasurement, request_id: str, principal: str
    ) -> str:
        self._count()
        if request_id not in self.requests:
            name = f"{parent}/measurements/{len(self.measurements) + 1}"
            self.measurements[name] = new
            self.requests[request_id] = name
        return self.requests[request_id]

    async def record_step(self, project: str, record: StepRecord, principal: str) -> None:
        self._count()
        self.lineage[record.record_digest] = record


@dataclass
class SimulatedDatasets:
    """Sealed and open dataset versions by name."""

    registry: SimulatedRegistry
    sealed: dict[str, str] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def seal(self, name: str, schema: str = "dataset/1") -> str:
        """Seal a version with one pack."""
        manifest = {"schema": schema, "task": "", "classes": [name], "packs": [PACK], "samples": []}
        self.sealed[name] = self.registry.put(json.dumps(manifest).encode()).digest
        return name

    async def get_sealed(self, name: str, principal: str) -> SealedDataset:
        if name in self.open:
            raise dataset_not_sealed(name)
        if name not in self.sealed:
            raise NotFound("DATASET_NOT_FOUND", f"there is no dataset {name}.")
        return SealedDataset(name, self.sealed[name])


class SimulatedBoards:
    """A catalogue of three boards with two profiles."""

    async def get_profile(self, board: str, principal: str) -> BoardProfile:
        known = {"x86-64": "x86-vnni", "raspberry-pi-5": "arm", "raspberry-pi-4": "arm"}
        if board not in known:
            raise NotFound("BOARD_NOT_FOUND", f"there is no board {board}.")
        return BoardProfile(known[board])


@dataclass
class Compiler:
    """A compiler service, and what a test does to it."""

    service: CompilerService
    jobs: JobService
    registry: SimulatedRegistry
    datasets: SimulatedDatasets
    clock: SettableClock
    worked: list[str] = field(default_factory=list)

    def request(self, **changes: Any) -> CompileRequest:
        """A request for the default recipe on both datasets."""
        asked = CompileRequest(
            project="default",
            version=VERSION,
            datasets={"calibration": "projects/default/datasets/d/versions/1",
                      "evaluation": "projects/default/datasets/d/versions/2"},
            boards=("x86-64",),
            principal="ada",
        )  # fmt: skip
        return replace(asked, **changes)

    async def work(self, worker: str = "worker-1", limit: int = 100) -> int:
        """Run ready steps as a worker would; returns how many."""
        done = 0
        while done < limit and (taken := await self.jobs.lease(Offer(worker))) is not None:
            step, _ = taken
            self.worked.append(step.spec.step)
            outcome = self.outcome(step.spec.kind, step.spec.step, step.spec.parameters)
            await self.jobs.complete(step.job, step.spec.step, step.fence, outcome)
            done += 1
        return done

    def outcome(self, kind: str, step: str, parameters: Mapping[str, Any]) -> StepOutcome:
        """What the real step would say, in shape."""
        record = self.registry.put(f"record of {step} {parameters}".encode()).digest
        if kind == "compile/evaluate":
            baseline = step == "evaluate-baseline"
            values = {"samples": 30, "labelled": 30, "accuracy": {"top1": 0.95 if baseline else 0.94},
                      "parity": {} if baseline else {"top1_agreement": 0.98}}  # fmt: skip
            return StepOutcome({"evaluation.json": self.registry.put(b"{}")}, values, (), record)
        outputs = {
            "model.onnx": self.registry.put(f"graph of {step} {parameters}".encode(), "application/onnx")
        }
        if any(known.trains for known in PASSES.values() if known.step_kind == kind):
            outputs["checkpoint"] = self.registry.put(f"checkpoint of {step} {parameters}".encode())
        given = {name for known in PASSES.values() if known.step_kind == kind for name in known.gives}
        outputs |= {name: self.registry.put(f"{name} of {step} {parameters}".encode()) for name in given}
        if kind == "compile/import":
            outputs |= {
                name: self.registry.put(name.encode()) for name in ("input-spec.json", "output-spec.json")
            }
        return StepOutcome(outputs, {"notes": []}, ("a warning",), record)

    async def fail(self, deterministic: bool) -> str:
        """Fail the next step; returns its id."""
        step, _ = await self.jobs.lease(Offer("worker-1"))
        await self.jobs.fail(
            step.job, step.spec.step, step.fence, StepFailure("CHECKPOINT_REFUSED", "no.", deterministic)
        )
        return step.spec.step

    async def settle(self, job: Job) -> Job:
        """Do the upkeep and return the job."""
        await self.jobs.upkeep()
        return await self.jobs.get(job.name)


@pytest.fixture
def registry() -> SimulatedRegistry:
    """A registry that holds version 3 of digits."""
    simulated = SimulatedRegistry()
    checkpoint = Given("sha256:" + "a" * 64, 10, "application/octet-stream")
    module = Given("sha256:" + "b" * 64, 20, "text/x-python")
    files = (FileOfVersion("model.pt", checkpoint), FileOfVersion("net.py", module))
    simulated.versions[VERSION] = Version(
        VERSION, 3, "torch-state-dict", files, "classification", input_spec_json='{"height": 8, "width": 8}',
        labels={"network-builder": "make"},
    )  # fmt: skip
    return simulated


@pytest.fixture
def start(database: Database, registry: SimulatedRegistry) -> Callable[[], Compiler]:
    """Return a function that starts a compiler on the test's database; again: a restart."""
    clock = SettableClock()
    datasets = SimulatedDatasets(registry)
    for number in (1, 2):
        datasets.seal(f"projects/default/datasets/d/versions/{number}")

    def started() -> Compiler:
        publisher = Publisher(registry, SqlJournal(Outbox(database)))
        jobs = JobService(database, publisher, SimulatedKeeper(), clock_us=clock)
        service = CompilerService(database, jobs, registry, datasets, SimulatedBoards())
        return Compiler(service, jobs, registry, datasets, clock)

    return started


@pytest.fixture
def compiler(start: Callable[[], Compiler]) -> Compiler:
    """A started compiler."""
    return start()
