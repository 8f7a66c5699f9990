"""Builds are accepted once, refused plainly, and what they made is registered once whatever fails between."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from boardwright.builder.service import Call
from boardwright.builder.workers import FORGET_SECONDS
from boardwright.database import Database
from boardwright.jobs.domain.dag import JobState
from boardwright.rpc.errors import AlreadyExists, BoardwrightError, FailedPrecondition

from .conftest import Stack, built


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
