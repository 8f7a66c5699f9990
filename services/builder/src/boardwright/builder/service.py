"""What the builder does: accepts builds and measurements as jobs, and registers what they made.

A job's step does the work in a worker. ``finish`` then registers the Artifact or the Measurements; the jobs
library calls it again after an outage or a restart until it succeeds, so it must be, and is, idempotent.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from boardwright.builder import errors, planning
from boardwright.builder.catalogue import BoardUnknown, Catalogue
from boardwright.builder.domain.boards import Board
from boardwright.builder.domain.compatibility import profiles_clash
from boardwright.builder.domain.pinning import HOST_BOARD
from boardwright.builder.ports import (
    Audit,
    BuildOrder,
    BuiltArtifact,
    Datasets,
    GoldenDataset,
    MeasureOrder,
    Registry,
    SourceVariant,
)
from boardwright.builder.workers import WorkersSeen
from boardwright.content.oci import INPUT_SPEC_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from boardwright.database import Database, Transaction, requests
from boardwright.database.outbox import Outbox
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.dag import JobState, StepSpec
from boardwright.jobs.domain.job import Job, NewJob, Step
from boardwright.jobs.service import JobService
from boardwright.jobs.storage.jobs import get_job
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument
from boardwright.telemetry.tracing import current_traceparent
from boardwright.toolchains.port import Toolchain

MAX_ARTIFACTS = 8
"""Measured side by side; more would make the rounds too long for the host to stay the same."""

_BUILD_METHOD, _MEASURE_METHOD = "CreateBuildJob", "CreateMeasureJob"


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks for a job, and under which request id."""

    actor: str
    request_id: str = ""
    fingerprint: str = ""
    validate_only: bool = False


class BuilderService:
    """The builder over its database and its ports; ``attach`` gives it the jobs before it serves."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        audit: Audit,
        registry: Registry,
        datasets: Datasets,
        catalogue: Callable[[], Catalogue],
        workers: WorkersSeen,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._audit = audit
        self._registry = registry
        self._datasets = datasets
        self._catalogue = catalogue
        self._workers = workers
        self._jobs: JobService | None = None

    def attach(self, jobs: JobService) -> None:
        """Give the jobs, which need this service as their owner."""
        self._jobs = jobs

    # The catalogue

    def boards(self) -> tuple[Board, ...]:
        """Return the catalogue."""
        return self._catalogue().boards()

    def board(self, name: str) -> Board:
        """Return a board; ``host`` is this machine's.

        Raises:
            NotFound: BOARD_NOT_FOUND.
            FailedPrecondition: HOST_NOT_IN_CATALOGUE.
        """
        if name == HOST_BOARD:
            name = self._workers.host_board
            if not name:
                raise errors.host_unknown("its device tree or processor is not known")
        try:
            return self._catalogue().board(name)
        except BoardUnknown as error:
            raise errors.board_not_found(name, error.nearest, str(error)) from error

    @property
    def workers(self) -> WorkersSeen:
        return self._workers

    # Jobs

    async def create_build_job(self, call: Call, order: BuildOrder) -> Job:
        """Plan and store a build; with ``validate_only`` only plan it.

        Raises:
            NotFound: BOARD_NOT_FOUND, VARIANT_NOT_FOUND, DATASET_VERSION_NOT_FOUND.
            FailedPrecondition: TOOLCHAIN_NEEDS_AGENT, SPEC_NOT_FIXED, PROFILE_MISMATCH, DATASET_NOT_SEALED.
            AlreadyExists: REQUEST_ID_REUSED.
        """
        known = await self._recall(call, _BUILD_METHOD)
        if known is not None:
            return known
        board = self.board(order.board)
        toolchain = planning.choose_toolchain(board, order.toolchain, self._workers.toolchains())
        variant = await self._registry.variant(call.actor, order.variant)
        if not variant.input_spec_json:
            raise errors.spec_not_fixed(variant.version)
        self._check_profile(variant, board, toolchain)
        golden = await self._golden(call.actor, order)
        spec = await self._registry.put_document(
            call.actor, order.project, variant.input_spec_json.encode(), INPUT_SPEC_MEDIA_TYPE
        )
        step = planning.build_step(order, variant, board, toolchain, spec, golden)
        parts = variant.name.split("/")
        title = f"build {parts[3]}@{parts[5]} {parts[7]} for {board.name} by {toolchain.name}"
        asked = {
            "kind": "build",
            "variant": variant.name,
            "board": board.name,
            "toolchain": toolchain.name,
            "golden_dataset": golden.name if golden else "",
            "pin": dict(order.pin),
        }
        new = NewJob(
            name=_job_name(order.project),
            project=order.project,
            principal=call.actor,
            spec=asked,
            steps=(step,),
            title=title,
            trace=variant.traceparent or current_traceparent(),
            retry=order.retry_failed,
        )
        return await self._create(call, _BUILD_METHOD, new)

    async def create_measure_job(self, call: Call, order: MeasureOrder) -> Job:
        """Plan and store a measurement of artifacts side by side.

        Raises:
            NotFound: ARTIFACT_NOT_FOUND.
            InvalidArgument: FIELD_INVALID.
            FailedPrecondition: BOARD_NEEDS_AGENT, ARTIFACT_INCOMPLETE.
            AlreadyExists: REQUEST_ID_REUSED.
        """
        known = await self._recall(call, _MEASURE_METHOD)
        if known is not None:
            return known
        names = list(dict.fromkeys(order.artifacts))
        if not 1 <= len(names) <= MAX_ARTIFACTS:
            raise InvalidArgument(
                "FIELD_INVALID", f"name 1 to {MAX_ARTIFACTS} artifacts, not {len(names)}.", field="artifacts"
            )
        artifacts = [await self._registry.artifact(call.actor, name) for name in names]
        boards = sorted({artifact.pin.board for artifact in artifacts})
        if len(boards) > 1:
            raise errors.boards_differ(boards)
        here = boards[0] in self._workers.boards()
        if not here and not order.allow_emulated:
            raise errors.board_needs_agent(boards[0], self._workers.host_board)
        step = planning.measure_step(order, artifacts, here)
        new = NewJob(
            name=_job_name(order.project),
            project=order.project,
            principal=call.actor,
            spec={
                "kind": "measure",
                "artifacts": names,
                "board": boards[0],
                "again": order.again,
                "allow_emulated": order.allow_emulated,
            },
            steps=(step,),
            title=_measure_title(artifacts),
            trace=current_traceparent(),
        )
        return await self._create(call, _MEASURE_METHOD, new)

    def _check_profile(self, variant: SourceVariant, board: Board, toolchain: Toolchain) -> None:
        made_for = self._catalogue().profile(variant.quantization_profile)
        if made_for is None:  # a float graph, or a profile of the user's own: the step looks at the graph
            return
        why = profiles_clash(made_for, board.runtime(toolchain.runtime).quantization_profile)
        if why:
            raise errors.profile_mismatch(variant.name, made_for.name, board.name, why)

    async def _golden(self, actor: str, order: BuildOrder) -> GoldenDataset | None:
        """Find the dataset's manifest and only those packs that hold the samples the step will take."""
        if not order.golden_dataset:
            return None
        from boardwright.samples import MANIFEST_MEDIA_TYPE as DATASET_MEDIA_TYPE
        from boardwright.samples import PACK_MEDIA_TYPE, DatasetManifest
        from boardwright.samples.reader import spread

        name, digest = await self._datasets.manifest_digest(actor, order.golden_dataset)
        content = await self._registry.read_document(actor, order.project, digest)
        manifest = DatasetManifest.from_bytes(content)
        chosen = spread(len(manifest.samples), planning.GOLDEN_SAMPLES)
        numbers = sorted({manifest.samples[index].pack for index in chosen})
        packs = tuple(
            Blob(manifest.packs[number].digest, manifest.packs[number].size_bytes, PACK_MEDIA_TYPE)
            for number in numbers
        )
        return GoldenDataset(name, Blob(digest, len(content), DATASET_MEDIA_TYPE), packs)

    async def _recall(self, call: Call, method: str) -> Job | None:
        """Return the job that the same request made before.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED.
        """

        def read(tx: Transaction) -> Job | None:
            stored = requests.recall(tx, call.actor, method, call.request_id, call.fingerprint)
            return None if stored is None else get_job(tx, stored.decode())

        return await self._database.read(read) if call.request_id else None

    async def _create(self, call: Call, method: str, new: NewJob) -> Job:
        if call.validate_only:
            return _planned(new)
        jobs = self._jobs
        if jobs is None:
            raise RuntimeError("attach the jobs before serving")

        def write(tx: Transaction) -> Job:
            stored = requests.recall(tx, call.actor, method, call.request_id, call.fingerprint)
            if stored is not None:
                return get_job(tx, stored.decode())
            job = jobs.create_in(tx, new)
            requests.remember(tx, call.actor, method, call.request_id, call.fingerprint, new.name.encode())
            return job

        return await self._database.write(write)

    # The jobs' owner

    def record(self, tx: Transaction, job: Job) -> None:
        """Write the audit record and the event of the job's new state; see ``JobOwner``."""
        self._audit(tx, job.project, job.principal, f"job.{job.state.value}", job.name)
        payload = {
            "actor": job.principal,
            "state": job.state.value,
            "title": job.title,
            "results": list(job.results),
            "failure": job.failure.to_json() if job.failure else None,
        }
        self._outbox.append(tx, job.name, f"buildJob.{job.state.value}", payload)

    async def finish(self, job: Job) -> Sequence[str]:
        """Register what the job made; see ``JobOwner``."""
        for step in job.steps:
            await self._registry.record_step(job.principal, job.project, step)
        if job.spec["kind"] == "build":
            return await self._finish_build(job)
        return await self._finish_measure(job)

    async def _finish_build(self, job: Job) -> Sequence[str]:
        outcome = job.step(planning.BUILD_STEP).outcome
        if outcome is None:
            raise FailedPrecondition("STEP_RESULT_INVALID", "the build has no result; run the job again.")
        new, manifest = planning.artifact_of(job.spec["variant"], outcome)
        await self._registry.put_document(job.principal, job.project, b"{}", "application/json")
        await self._registry.put_document(job.principal, job.project, manifest, MANIFEST_MEDIA_TYPE)
        request = planning.request_id(job.name, "artifact")
        return [await self._registry.create_artifact(job.principal, new, request)]

    async def _finish_measure(self, job: Job) -> Sequence[str]:
        outcome = job.step(planning.MEASURE_STEP).outcome
        if outcome is None:
            raise FailedPrecondition("STEP_RESULT_INVALID", "no figures came back; run the job again.")
        names = []
        for number, new in enumerate(planning.measurements_of(outcome)):
            request = planning.request_id(job.name, "measurement", str(number))
            names.append(await self._registry.create_measurement(job.principal, new, request))
        return names


def _job_name(project: str) -> str:
    """Return a new name; ids sort by time."""
    return f"projects/{project}/buildJobs/b{time.time_ns() // 1_000_000:011x}{secrets.token_hex(4)}"


def _measure_title(artifacts: Sequence[BuiltArtifact]) -> str:
    more = f" and {len(artifacts) - 1} more" if len(artifacts) > 1 else ""
    return f"measure {artifacts[0].short_name}{more}"


def _planned(new: NewJob) -> Job:
    """Return what would be stored; it has no name yet."""
    from boardwright.jobs.domain.dag import StepState

    def step(spec: StepSpec) -> Step:
        inputs = {name: given for name, given in spec.inputs.items() if isinstance(given, Blob)}
        return Step("", new.project, spec, StepState.WAITING, inputs)

    return Job(
        "",
        new.project,
        new.principal,
        json.loads(json.dumps(new.spec)),
        JobState.QUEUED,
        tuple(step(spec) for spec in new.steps),
        title=new.title,
        trace=new.trace,
        revision=0,
    )
