"""Jobs are accepted once, refused plainly, and what they made is registered once whatever fails between."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from boardwright.builder.catalogue import shipped_catalogue
from boardwright.builder.ports import BuildOrder, MeasureOrder
from boardwright.builder.service import BuilderService, Call
from boardwright.builder.settings import MIGRATIONS
from boardwright.builder.storage.journal import add_audit_event
from boardwright.builder.workers import FORGET_SECONDS, WorkersSeen
from boardwright.content.oci import (
    ENGINE_MEDIA_TYPE,
    GOLDEN_MEDIA_TYPE,
    GRAPH_MEDIA_TYPE,
    PIN_MEDIA_TYPE,
    WEIGHTS_MEDIA_TYPE,
)
from boardwright.database import Database
from boardwright.database.outbox import Outbox
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.dag import JobState
from boardwright.jobs.domain.job import Job, StepOutcome
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.service import JobService
from boardwright.rpc.errors import AlreadyExists, BoardwrightError, FailedPrecondition, InvalidArgument
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


def _blob(letter: str, media_type: str) -> Blob:
    return Blob("sha256:" + letter * 64, 100, media_type)


def built(board: str = "x86-64", model: str = "model.onnx", record: str = "9") -> StepOutcome:
    """Return what build/build gives."""
    media_type = GRAPH_MEDIA_TYPE if model == "model.onnx" else ENGINE_MEDIA_TYPE
    pin = {**X86_PIN, "board": board}
    return StepOutcome(
        {
            "golden.npz": _blob("c", GOLDEN_MEDIA_TYPE),
            model: _blob("b", media_type),
            "pin.json": _blob("d", PIN_MEDIA_TYPE),
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


def measured(*artifacts: str, record: str = "8") -> StepOutcome:
    """Return what build/measure gives."""
    figures = {"runs": 200.0, "mean_ms": 2.0, "p50_ms": 1.9, "p95_ms": 2.5, "p99_ms": 3.0, "std_ms": 0.2}
    subjects = [
        {
            "name": name,
            "board": "x86-64",
            "origin": "measured",
            "emulated_because": [],
            "latency": [{"threads": 1, **figures}, {"threads": 0, **figures}],
            "memory": {"peak_rss_bytes": 1e8},
            "model_size_bytes": 100,
        }
        for name in artifacts
    ]
    values = {"host": {"pin": X86_PIN, "machine": "a CPU"}, "protocol": {"runs": 200}, "subjects": subjects}
    return StepOutcome({}, values, ("The host was busy.",), "sha256:" + record * 64)


async def test_a_build_is_planned_as_one_step(stack: Stack) -> None:
    job = await stack.build("raspberry-pi-5")
    (step,) = job.steps
    assert (step.spec.kind, step.spec.requires.toolchain, step.spec.requires.board) == (
        "build/build",
        "ort-format",
        "any",
    )
    assert step.spec.parameters["board"] == "raspberry-pi-5"
    assert set(step.inputs) == {"graph", "input_spec"}
    assert job.title == "build digits@3 int8 for raspberry-pi-5 by ort-format"
    assert stack.registry.documents[step.inputs["input_spec"].digest] == b'{"schema":"input-spec/1"}'
    assert set(stack.registry.actors) == {"alice"}


async def test_host_means_this_machine(stack: Stack) -> None:
    job = await stack.build("host")
    assert job.spec["board"] == "x86-64" and job.spec["toolchain"] == "onnxruntime"


@pytest.mark.parametrize(
    ("order", "reason", "told"),
    [
        ({"board": "raspberry-pi-7"}, "BOARD_NOT_FOUND", "raspberry-pi-5"),
        ({"board": "jetson-orin-nx"}, "TOOLCHAIN_NEEDS_AGENT", "trtexec --onnx=graph.onnx"),
        ({"board": "imx8m-plus"}, "TOOLCHAIN_NEEDS_AGENT", "ort-format or onnxruntime"),
        ({"board": "sk-tda4vm"}, "TOOLCHAIN_NEEDS_AGENT", "tidlrunner-cli compile"),
        ({"board": "x86-64", "toolchain": "tensorrt"}, "FIELD_INVALID", "onnxruntime, ort-format"),
        ({"variant": "projects/default/models/x/versions/1/variants/y"}, "VARIANT_NOT_FOUND", "versions/1"),
        ({"golden_dataset": "no-such"}, "DATASET_VERSION_NOT_FOUND", "no-such"),
        ({"golden_dataset": "still-open"}, "DATASET_NOT_SEALED", "seal it"),
    ],
)
async def test_what_cannot_be_built_is_refused_before_a_job(
    stack: Stack, order: dict[str, Any], reason: str, told: str
) -> None:
    stack.datasets.open.add("still-open")
    with pytest.raises(BoardwrightError) as caught:
        await stack.build(**order)
    assert caught.value.reason == reason and told in caught.value.message


async def test_a_version_without_a_spec_is_refused(stack: Stack) -> None:
    variant = stack.registry.add_variant("raw", spec="")
    with pytest.raises(FailedPrecondition, match="declare one at push") as caught:
        await stack.build(variant=variant)
    assert caught.value.reason == "SPEC_NOT_FIXED"


async def test_an_agents_offer_opens_its_toolchain_until_it_is_gone(stack: Stack, clock: list[float]) -> None:
    stack.workers.note(["jetson-orin-nx"], ["tensorrt"])
    variant = stack.registry.add_variant("int8-tensorrt", profile="tensorrt")
    job = await stack.build("jetson-orin-nx", variant=variant)
    assert job.steps[0].spec.requires.board == "jetson-orin-nx"
    clock[0] += FORGET_SECONDS + 1
    with pytest.raises(FailedPrecondition, match="waits for"):
        await stack.build("jetson-orin-nx", variant=variant)


async def test_a_variant_for_other_kernels_is_refused_by_its_profile(stack: Stack) -> None:
    stack.workers.note(["jetson-orin-nx", "imx8m-plus"], ["tensorrt", "litert-vx"])
    for board, told in (("jetson-orin-nx", "zero point 0 only"), ("imx8m-plus", "build the baseline")):
        with pytest.raises(FailedPrecondition, match=told) as caught:
            await stack.build(board)
        assert caught.value.reason == "PROFILE_MISMATCH"
    assert (await stack.build("raspberry-pi-5")).steps  # U8S8 runs there too, only slower


async def test_only_the_packs_of_the_golden_samples_travel(stack: Stack) -> None:
    from boardwright.content import Digest
    from boardwright.samples import DatasetManifest, ManifestSample, PackEntry

    packs = tuple(PackEntry("sha256:" + f"{n}" * 64, 1 << 20) for n in range(8))
    samples = tuple(
        ManifestSample(f"s{n:03}", "sha256:" + "e" * 64, 10, "image/png", n // 10, 0, None) for n in range(80)
    )
    content = DatasetManifest("classification", ("a",), packs, samples).to_bytes()
    digest = str(Digest.of(content))
    stack.registry.documents[digest] = content
    stack.datasets.manifests["projects/default/datasets/d/versions/1"] = digest
    job = await stack.build(golden_dataset="projects/default/datasets/d/versions/1")
    inputs = job.steps[0].inputs
    assert inputs["golden"].digest == digest
    travelling = {blob.digest[-1] for name, blob in inputs.items() if name.startswith("golden.pack-")}
    assert travelling == {"0", "2", "4", "6"}


async def test_the_same_request_is_the_same_job_and_another_is_refused(stack: Stack) -> None:
    call = Call("alice", "r-1", "print-1")
    first = await stack.build(call=call)
    stack.registry.outages = 1  # a repeated request needs nobody else
    assert (await stack.build(call=call)).name == first.name
    stack.registry.outages = 0
    with pytest.raises(AlreadyExists, match="r-1"):
        await stack.build(call=Call("alice", "r-1", "print-2"))


async def test_a_dry_run_stores_nothing(stack: Stack) -> None:
    job = await stack.build(call=Call("alice", validate_only=True))
    assert job.name == "" and job.steps[0].spec.kind == "build/build"
    assert await stack.database.read(lambda tx: tx.all("SELECT name FROM jobs")) == []


async def test_a_finished_build_is_an_artifact_with_its_manifest(stack: Stack) -> None:
    job = await stack.build()
    assert (await stack.work(built())).state is JobState.FINISHING
    await stack.jobs.upkeep()
    done = await stack.jobs.get(job.name)
    assert done.state is JobState.SUCCEEDED
    assert stack.registry.lineage == {"sha256:" + "9" * 64: "build/build"}
    artifact = stack.registry.artifacts[done.results[0]]
    assert [file.path for file in artifact.files] == ["model.onnx", "golden.npz", "pin.json"]
    assert artifact.details["warnings"] == ["a warning"] and artifact.pin.cpu_features == ("vnni",)
    manifests = [c for c in stack.registry.documents.values() if b"artifact.v1" in c]
    titles = [layer["annotations"] for layer in json.loads(manifests[0])["layers"]]
    assert titles[0] == {"org.opencontainers.image.title": "model.onnx"}


async def test_registration_waits_out_outages_and_lost_answers(stack: Stack) -> None:
    job = await stack.build()
    await stack.work(built())
    stack.registry.outages, stack.registry.lost_answers = 2, 1
    for _ in range(60):
        await stack.jobs.upkeep()
        if (await stack.jobs.get(job.name)).ended:
            break
        await stack.database.write(lambda tx: tx.execute("UPDATE jobs SET finish_after_us = 0"))
    done = await stack.jobs.get(job.name)
    assert done.state is JobState.SUCCEEDED and list(stack.registry.artifacts) == list(done.results)


async def test_a_restarted_builder_registers_what_the_killed_one_did_not(
    stack: Stack, database: Database, clock: list[float], make_registry: Callable[[], Any]
) -> None:
    job = await stack.build()
    await stack.work(built())
    again = Stack(database, clock, make_registry(), stack.datasets)  # the first one never gets to finish
    await again.jobs.upkeep()
    done = await again.jobs.get(job.name)
    assert done.state is JobState.SUCCEEDED and len(again.registry.artifacts) == 1


async def test_the_same_build_again_comes_from_the_cache_and_is_the_same_artifact(stack: Stack) -> None:
    await stack.build()
    await stack.work(built())
    await stack.jobs.upkeep()
    second = await stack.build()
    await stack.jobs.upkeep()
    done = await stack.jobs.get(second.name)
    assert done.steps[0].cached and done.state is JobState.SUCCEEDED
    assert list(done.results) == list(stack.registry.artifacts)


async def _two_artifacts(stack: Stack) -> list[str]:
    names = []
    for number, variant in enumerate(("baseline", "int8")):
        job = await stack.build(variant=stack.registry.add_variant(variant), retry_failed=bool(number))
        if not (await stack.jobs.get(job.name)).steps[0].cached:
            await stack.work(built(record=str(number)))
        await stack.jobs.upkeep()
        names += (await stack.jobs.get(job.name)).results
    return names


async def test_figures_are_registered_side_by_side_and_once(stack: Stack) -> None:
    names = await _two_artifacts(stack)
    order = MeasureOrder("default", list(reversed(names)), runs=50)
    job = await stack.builder.create_measure_job(ALICE, order)
    step = job.steps[0]
    assert step.spec.parameters["baseline"] == 1 and step.spec.parameters["runs"] == 50
    assert step.spec.requires.board == "x86-64"
    assert [s["name"] for s in step.spec.parameters["subjects"]] == order.artifacts
    await stack.work(measured(*names))
    stack.registry.outages = 1
    await stack.jobs.upkeep()
    await stack.database.write(lambda tx: tx.execute("UPDATE jobs SET finish_after_us = 0"))
    await stack.jobs.upkeep()
    done = await stack.jobs.get(job.name)
    assert done.state is JobState.SUCCEEDED and len(done.results) == 8
    kinds = [(m.kind, m.threads) for m in stack.registry.measurements.values() if m.artifact == names[0]]
    assert kinds == [("latency", 1), ("latency", 0), ("memory", 0), ("size", 0)]
    said = [m.details["warnings"] for m in stack.registry.measurements.values()]
    assert said == [["The host was busy."]] * 8

    cached = await stack.builder.create_measure_job(ALICE, order)
    await stack.jobs.upkeep()
    again = await stack.jobs.get(cached.name)
    assert again.steps[0].cached and again.results == done.results
    assert len(stack.registry.measurements) == 8


async def test_both_files_of_a_runtime_that_has_two_are_measured(stack: Stack) -> None:
    pin = {**X86_PIN, "runtime": "openvino", "runtime_version": "2026.4.1"}
    outcome = built(model="model.xml")
    files = {**outcome.outputs, "model.bin": _blob("e", WEIGHTS_MEDIA_TYPE)}
    values = {**outcome.values, "files": ["model.xml", "model.bin"], "pin": pin, "toolchain": "openvino"}
    job = await stack.build(variant=stack.registry.add_variant("int8"), toolchain="openvino")
    assert job.steps[0].spec.requires.toolchain == "openvino"
    await stack.work(replace(outcome, outputs=files, values=values))
    await stack.jobs.upkeep()
    (name,) = (await stack.jobs.get(job.name)).results
    assert [file.path for file in stack.registry.artifacts[name].files][:2] == ["model.xml", "model.bin"]

    measuring = await stack.builder.create_measure_job(ALICE, MeasureOrder("default", [name]))
    assert measuring.steps[0].inputs["model-0"].digest == files["model.xml"].digest
    assert measuring.steps[0].inputs["weights-0"].digest == files["model.bin"].digest
    figures = measured(name)
    figures.values["subjects"][0]["host_pin"] = pin
    await stack.work(figures)
    await stack.jobs.upkeep()
    assert {found.host.runtime for found in stack.registry.measurements.values()} == {"openvino"}


async def test_again_measures_anew(stack: Stack) -> None:
    names = await _two_artifacts(stack)
    for number, again in enumerate((False, True)):
        order = MeasureOrder("default", names, again=again)
        job = await stack.builder.create_measure_job(ALICE, order)
        assert not (await stack.jobs.get(job.name)).steps[0].cached
        await stack.work(measured(*names, record=str(number)))
        await stack.jobs.upkeep()
    assert len(stack.registry.measurements) == 16


async def test_another_boards_figure_needs_its_agent_or_is_emulated(stack: Stack) -> None:
    job = await stack.build("raspberry-pi-5")
    await stack.work(built("raspberry-pi-5", "model.ort"))
    await stack.jobs.upkeep()
    names = list((await stack.jobs.get(job.name)).results)
    with pytest.raises(FailedPrecondition, match="no worker speaks for raspberry-pi-5") as caught:
        await stack.builder.create_measure_job(ALICE, MeasureOrder("default", names))
    assert caught.value.reason == "BOARD_NEEDS_AGENT"
    emulated = await stack.builder.create_measure_job(
        ALICE, MeasureOrder("default", names, allow_emulated=True)
    )
    assert emulated.steps[0].spec.requires.board == "any"
    assert emulated.steps[0].spec.parameters["allow_emulated"] is True
    stack.workers.note(["raspberry-pi-5"], [])
    there = await stack.builder.create_measure_job(ALICE, MeasureOrder("default", names))
    assert there.steps[0].spec.requires.board == "raspberry-pi-5"


async def test_artifacts_of_several_boards_are_not_compared(stack: Stack) -> None:
    names = []
    for board, model in (("x86-64", "model.onnx"), ("raspberry-pi-5", "model.ort")):
        job = await stack.build(board)
        await stack.work(built(board, model))
        await stack.jobs.upkeep()
        names += (await stack.jobs.get(job.name)).results
    with pytest.raises(InvalidArgument, match="raspberry-pi-5, x86-64"):
        await stack.builder.create_measure_job(ALICE, MeasureOrder("default", names))
    with pytest.raises(InvalidArgument, match="1 to 8"):
        await stack.builder.create_measure_job(ALICE, MeasureOrder("default", []))


async def test_every_state_is_audited_and_told(stack: Stack) -> None:
    job = await stack.build()
    await stack.work(built())
    await stack.jobs.upkeep()
    rows = await stack.database.read(
        lambda tx: tx.all(
            "SELECT actor, method FROM audit_events WHERE resource = :name ORDER BY id", name=job.name
        )
    )
    methods = [row["method"] for row in rows]
    assert methods[0] == "job.queued" and methods[-1] == "job.succeeded"
    assert {row["actor"] for row in rows} == {"alice"}
    events = await stack.database.read(lambda tx: tx.all("SELECT kind FROM events ORDER BY id"))
    assert [row["kind"] for row in events] == [m.replace("job.", "buildJob.") for m in methods]
