"""Compile jobs from request to registered Variants, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from boardwright.database import Database
from boardwright.database.outbox import read
from boardwright.jobs.domain.dag import JobState, StepState
from boardwright.jobs.domain.leases import Offer
from boardwright.rpc.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)

ROLES = ("calibration", "evaluation")
MISSPELT = "version: 1\nname: x\npasses:\n  - pass: imort\n"
VERSION_NINE = "projects/default/models/digits/versions/9"
VARIANTS = "projects/default/models/digits/versions/3/variants"


async def test_a_recipe_runs_and_its_results_are_registered(compiler):
    job = await compiler.service.create_job(compiler.request())
    assert job.title == "digits@3 by default"
    assert await compiler.work() == 6
    done = await compiler.settle(job)
    assert done.state is JobState.SUCCEEDED
    assert list(compiler.registry.variants) == [f"{VARIANTS}/baseline", f"{VARIANTS}/int8"]
    int8 = compiler.registry.variants[f"{VARIANTS}/int8"]
    assert (int8.recipe, int8.quantization_profile) == ("default", "x86-vnni")
    assert int8.details["warnings"] == ["a warning"]
    figures = [
        (name.split("/")[7], m.kind, dict(m.values)) for name, m in compiler.registry.measurements.items()
    ]
    assert figures == [
        ("baseline", "size", {"size_bytes": figures[0][2]["size_bytes"]}),
        ("baseline", "accuracy", {"top1": 0.95, "samples": 30.0}),
        ("int8", "size", {"size_bytes": figures[2][2]["size_bytes"]}),
        ("int8", "accuracy", {"top1": 0.94, "samples": 30.0}),
        ("int8", "parity", {"top1_agreement": 0.98, "samples": 30.0}),
    ]
    assert {m.dataset for m in compiler.registry.measurements.values() if m.kind != "size"} == {
        "projects/default/datasets/d/versions/2"
    }
    assert set(done.results) == {*compiler.registry.variants, *compiler.registry.measurements}
    assert len(compiler.registry.lineage) == 6


async def test_what_was_pushed_reaches_the_import_step(compiler):
    job = await compiler.service.create_job(compiler.request())
    spec = job.step("import").spec
    assert spec.parameters["builder"] == "make"
    assert spec.parameters["input_spec"] == {"height": 8, "width": 8}
    assert spec.parameters["format"] == "torch-state-dict"
    assert set(spec.inputs) == {"checkpoint", "module"}
    assert set(job.step("quantize-int8").spec.inputs) == {
        "model.onnx", "input-spec.json", "output-spec.json", "calibration", "calibration.pack-0",
        "calibration-record.json", "recovered.onnx",
    }  # fmt: skip


async def test_derived_specs_are_fixed_before_the_first_variant(compiler):
    job = await compiler.service.create_job(compiler.request())
    await compiler.work()
    await compiler.settle(job)
    declared = '{"height": 8, "width": 8}'
    assert compiler.registry.specs == {job.spec["version"]: (declared, "output-spec.json")}


async def test_boards_with_one_profile_share_a_variant(compiler):
    boards = ("x86-64", "raspberry-pi-5", "raspberry-pi-4")
    job = await compiler.service.create_job(compiler.request(boards=boards))
    await compiler.work()
    await compiler.settle(job)
    assert [name.rpartition("/")[2] for name in compiler.registry.variants] == [
        "baseline", "int8-x86-vnni", "int8-arm",
    ]  # fmt: skip


async def test_the_same_job_again_takes_every_step_from_the_cache(compiler):
    first = await compiler.service.create_job(compiler.request())
    await compiler.work()
    first = await compiler.settle(first)
    second = await compiler.settle(await compiler.service.create_job(compiler.request()))
    assert await compiler.work() == 0
    assert second.name != first.name
    assert second.state is JobState.SUCCEEDED
    assert all(step.cached for step in second.steps)
    assert len(compiler.registry.variants) == 2


async def test_other_samples_make_another_variant_beside_the_first(compiler):
    await compiler.settle(await _worked(compiler))
    yaml = "version: 1\nname: few\npasses:\n  - pass: import\n  - pass: quantize\n    samples: 5\n"
    await compiler.settle(await _worked(compiler, recipe_yaml=yaml))
    assert [name.rpartition("/")[2] for name in compiler.registry.variants] == [
        "baseline", "int8", "int8-2",
    ]  # fmt: skip


async def test_another_profile_makes_a_variant_that_says_so(compiler):
    await compiler.settle(await _worked(compiler))
    await compiler.settle(await _worked(compiler, boards=("raspberry-pi-5",)))
    assert [name.rpartition("/")[2] for name in compiler.registry.variants] == [
        "baseline",
        "int8",
        "int8-arm",
    ]


async def test_a_request_id_makes_the_create_safe_to_retry(compiler):
    asked = compiler.request(request_id="once", fingerprint="f")
    first = await compiler.service.create_job(asked)
    assert (await compiler.service.create_job(asked)).name == first.name
    with pytest.raises(AlreadyExists, match="was used for another"):
        await compiler.service.create_job(compiler.request(request_id="once", fingerprint="other"))


async def test_validate_only_shows_what_would_be_made_and_leaves_nothing(compiler):
    await compiler.settle(await _worked(compiler))
    yaml = "version: 1\nname: mine\npasses:\n  - pass: import\n  - pass: quantize\n    samples: 5\n"
    shown = await compiler.service.create_job(compiler.request(recipe_yaml=yaml, validate_only=True))
    assert [(step.spec.step, step.cached) for step in shown.steps] == [
        ("import", True),
        ("quantize-int8", False),
    ]
    with pytest.raises(NotFound):
        await compiler.jobs.get(shown.name)
    assert await compiler.work() == 0


async def test_a_killed_workers_step_runs_again_elsewhere(compiler):
    job = await compiler.service.create_job(compiler.request())
    lost, _ = await compiler.jobs.lease(Offer("killed"))
    assert await compiler.work("other") == 0
    compiler.clock.forward(60)
    await compiler.jobs.upkeep()
    compiler.clock.forward(60)
    assert await compiler.work("other") == 6
    done = await compiler.settle(job)
    assert done.state is JobState.SUCCEEDED
    assert done.step(lost.spec.step).worker == "other"


async def test_a_killed_service_resumes_its_jobs(start):
    before = start()
    job = await before.service.create_job(before.request())
    assert await before.work(limit=2) == 2
    after = start()
    assert await after.work() == 4
    done = await after.settle(job)
    assert done.state is JobState.SUCCEEDED
    assert sorted([*before.worked, *after.worked]) == sorted(step.spec.step for step in job.steps)


@pytest.mark.parametrize("calls", [0, 3, 5, 7, 9, 11])
async def test_a_registry_that_goes_away_while_results_are_registered_costs_nothing(start, calls):
    before = start()
    job = await before.service.create_job(before.request())
    await before.work()
    before.registry.calls_until_away = calls
    assert (await before.settle(job)).state is JobState.FINISHING
    before.registry.calls_until_away = None
    after = start()
    after.clock.forward(120)
    done = await after.settle(job)
    assert done.state is JobState.SUCCEEDED
    assert len(after.registry.variants) == 2
    assert len(after.registry.measurements) == 5


async def test_a_registry_that_is_away_at_the_start_is_told_and_nothing_is_made(compiler):
    compiler.registry.calls_until_away = 0
    with pytest.raises(Unavailable):
        await compiler.service.create_job(compiler.request(request_id="r", fingerprint="f"))
    compiler.registry.calls_until_away = None
    assert (await compiler.service.create_job(compiler.request(request_id="r", fingerprint="f"))).steps


async def test_a_failed_pass_skips_what_needs_it_and_a_retry_runs_it_again(compiler):
    job = await compiler.service.create_job(compiler.request())
    assert await compiler.fail(deterministic=True) == "import"
    failed = await compiler.settle(job)
    assert failed.state is JobState.FAILED
    assert {step.state for step in failed.steps} == {StepState.FAILED, StepState.SKIPPED}
    remembered = await compiler.service.create_job(compiler.request())
    assert remembered.step("import").failure.reason == "CHECKPOINT_REFUSED"
    again = await compiler.service.create_job(compiler.request(retry_failed=True))
    assert await compiler.work() == 6
    assert (await compiler.settle(again)).state is JobState.SUCCEEDED


async def test_every_state_is_written_down_with_its_event(compiler, database: Database):
    await compiler.settle(await _worked(compiler))
    audit = await database.read(lambda tx: tx.all("SELECT actor, action FROM audit_events ORDER BY id"))
    assert [(row["actor"], row["action"]) for row in audit] == [
        ("ada", "job.queued"), ("ada", "job.running"), ("ada", "job.finishing"), ("ada", "job.succeeded"),
    ]  # fmt: skip
    events = await database.read(lambda tx: read(tx, (0, 0), 100))
    assert [event.kind for event in events] == [row["action"] for row in audit]


@pytest.mark.parametrize(
    ("changes", "kind", "reason", "words"),
    [
        ({"recipe_name": "defalt"}, NotFound, "RECIPE_NOT_FOUND", "did you mean 'default'"),
        (
            {"recipe_yaml": MISSPELT},
            InvalidArgument,
            "RECIPE_INVALID",
            "line 4: there is no pass 'imort' (did",
        ),
        ({"recipe_yaml": ""}, InvalidArgument, "RECIPE_INVALID", "line 1: the recipe is empty"),
        ({"datasets": {}}, FailedPrecondition, "DATASET_MISSING", "needs a sealed evaluation dataset"),
        (
            {"datasets": {}, "recipe_name": "baseline"},
            FailedPrecondition,
            "DATASET_MISSING",
            "recipe baseline, line",
        ),
        ({"datasets": {"calibraton": "x"}}, InvalidArgument, "FIELD_INVALID", "the roles are"),
        ({"datasets": dict.fromkeys(ROLES, "gone")}, NotFound, "DATASET_NOT_FOUND", "gone"),
        ({"datasets": dict.fromkeys(ROLES, "open")}, FailedPrecondition, "DATASET_NOT_SEALED", "seal it"),
        ({"datasets": dict.fromkeys(ROLES, "odd")}, FailedPrecondition, "DATASET_UNREADABLE", "seal a new"),
        ({"boards": ("toaster",)}, NotFound, "BOARD_NOT_FOUND", "toaster"),
        ({"version": VERSION_NINE}, NotFound, "VERSION_NOT_FOUND", "versions/9"),
    ],
)
async def test_what_cannot_be_compiled_is_told(compiler, changes, kind, reason, words):
    compiler.datasets.open.add("open")
    compiler.datasets.seal("odd", schema="dataset/9")
    with pytest.raises(kind) as caught:
        await compiler.service.create_job(compiler.request(**changes))
    assert caught.value.reason == reason
    assert words in caught.value.message


async def _worked(compiler, **changes):
    job = await compiler.service.create_job(compiler.request(**changes))
    await compiler.work()
    return job
