"""Teachers that a recipe names: other versions in the registry, as the step is told of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from boardwright.compiler.domain.plan import Given
from boardwright.compiler.ports import FileOfVersion, Version
from boardwright.content import canonical_json
from boardwright.jobs.domain.dag import JobState
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument, NotFound

TEACHER = "projects/default/models/resnet/versions/7"
LEARN = "version: 1\nname: learn\npasses:\n  - pass: import\n  - pass: distill\n    teacher: {}\n"
TRAINING = {"training": "projects/default/datasets/d/versions/1"}


@pytest.fixture
def teacher(registry) -> Version:
    """Version 7 of another model, with a module of its own."""
    files = (
        FileOfVersion("big.pt", Given("sha256:" + "e" * 64, 100, "application/octet-stream")),
        FileOfVersion("big.py", Given("sha256:" + "f" * 64, 40, "text/x-python")),
    )
    registry.versions[TEACHER] = Version(
        TEACHER, 7, "torch-state-dict", files, "classification",
        input_spec_json='{"height": 32, "width": 32}', labels={"network-builder": "big"},
    )  # fmt: skip
    return registry.versions[TEACHER]


async def test_another_version_teaches_and_the_trained_checkpoint_goes_on(compiler, teacher):
    recipe = LEARN.format("resnet@7") + "  - pass: distill\n    variant: again\n    teacher: baseline\n"
    job = await compiler.service.create_job(compiler.request(recipe_yaml=recipe, datasets=TRAINING))
    first, second = job.step("distill-distilled").spec, job.step("distill-again").spec
    assert set(first.inputs) == {
        "model.onnx", "input-spec.json", "output-spec.json", "checkpoint", "module", "teacher",
        "teacher-module", "training", "training.pack-0",
    }  # fmt: skip
    assert first.inputs["teacher"].digest == teacher.files[0].content.digest
    assert first.inputs["teacher-module"].digest == teacher.files[1].content.digest
    assert first.parameters["teacher_import"] == {
        "format": "torch-state-dict", "task": "classification", "input_spec": {"height": 32, "width": 32},
        "builder": "big",
    }  # fmt: skip
    assert first.parameters["import"]["input_spec"] == {"height": 8, "width": 8}
    assert second.inputs["checkpoint"].step == "distill-distilled"
    assert second.inputs["baseline.onnx"].step == "import"
    assert second.inputs["teacher"].digest == "sha256:" + "a" * 64
    assert second.parameters["teacher_import"] == second.parameters["import"]
    await compiler.work()
    done = await compiler.settle(job)
    assert done.state is JobState.SUCCEEDED
    assert [name.rpartition("/")[2] for name in compiler.registry.variants] == [
        "baseline",
        "distilled",
        "again",
    ]


async def test_specs_that_the_teachers_own_import_derived_do_not_make_it_another(
    compiler, registry, teacher, monkeypatch
):
    derived = {"input-spec.json": {"height": 32}, "output-spec.json": {"num_classes": 10}}
    registry.versions[TEACHER] = replace(teacher, input_spec_json="")
    asked = compiler.request(recipe_yaml=LEARN.format("resnet@7"), datasets=TRAINING)
    before = await compiler.service.create_job(replace(asked, validate_only=True))
    alone = "version: 1\nname: alone\npasses:\n  - pass: import\n"
    await compiler.service.create_job(compiler.request(version=TEACHER, recipe_yaml=alone))
    outcome = compiler.outcome

    def imported(kind, step, parameters):
        found = outcome(kind, step, parameters)
        specs = {name: registry.put(canonical_json(spec)) for name, spec in derived.items()}
        return replace(found, outputs={**found.outputs, **specs})

    monkeypatch.setattr(compiler, "outcome", imported)
    assert await compiler.work() == 1
    registry.versions[TEACHER] = replace(
        teacher,
        input_spec_json=json.dumps(derived["input-spec.json"]),
        output_spec_json=json.dumps(derived["output-spec.json"]),
    )
    after = await compiler.service.create_job(asked)
    assert after.step("distill-distilled").spec == before.step("distill-distilled").spec


@pytest.mark.parametrize(
    ("named", "kind", "reason", "words"),
    [
        ("resnet@9", NotFound, "VERSION_NOT_FOUND", "resnet/versions/9"),
        ("resnet@production", InvalidArgument, "RECIPE_INVALID", "names the stage 'production'"),
        ("resnet", InvalidArgument, "RECIPE_INVALID", "write MODEL@NUMBER"),
        ("resnet@7", FailedPrecondition, "CHECKPOINT_MISSING", "push it again"),
    ],
)
async def test_a_teacher_that_is_no_version_is_told(compiler, registry, teacher, named, kind, reason, words):
    registry.versions[TEACHER] = replace(teacher, files=())
    asked = compiler.request(recipe_yaml=LEARN.format(named), datasets=TRAINING)
    with pytest.raises(kind) as caught:
        await compiler.service.create_job(asked)
    assert caught.value.reason == reason
    assert words in caught.value.message


async def test_without_any_dataset_it_is_told_which_would_do(compiler, teacher):
    asked = compiler.request(recipe_yaml=LEARN.format("resnet@7"), datasets={})
    with pytest.raises(FailedPrecondition, match="distill needs a sealed training or calibration dataset"):
        await compiler.service.create_job(asked)


async def test_the_teacher_is_required(compiler):
    recipe = "version: 1\nname: learn\npasses:\n  - pass: import\n  - pass: distill\n"
    with pytest.raises(InvalidArgument, match="'teacher' is a required property"):
        await compiler.service.create_job(compiler.request(recipe_yaml=recipe))
