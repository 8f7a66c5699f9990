"""Measurements are planned side by side, and their figures registered once."""

from dataclasses import replace

import pytest

from boardwright.builder.ports import MeasureOrder
from boardwright.content.oci import WEIGHTS_MEDIA_TYPE
from boardwright.jobs.domain.dag import JobState
from boardwright.jobs.domain.job import StepOutcome
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument

from .conftest import ALICE, X86_PIN, Stack, blob, built


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
    files = {**outcome.outputs, "model.bin": blob("e", WEIGHTS_MEDIA_TYPE)}
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
