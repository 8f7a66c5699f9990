"""A recipe becomes a DAG of steps whose inputs are content or outputs of earlier steps."""

from __future__ import annotations

import pytest

from boardwright.compiler.domain.plan import DatasetContent, FromStep, Given, Subject, plan
from boardwright.compiler.domain.profiles import BoardProfile
from boardwright.compiler.domain.recipe import RecipeError
from boardwright.compiler.recipes import parse_recipe, read_shipped

CHECKPOINT = Given("sha256:" + "a" * 64, 10, "application/octet-stream")
MANIFEST = Given("sha256:" + "b" * 64, 20, "application/json")
PACK = Given("sha256:" + "c" * 64, 30, "application/x-tar")
DATASETS = {name: DatasetContent(name, MANIFEST, (PACK,)) for name in ("calibration", "evaluation")}


def subject(**changes):
    return Subject(**{"checkpoint": CHECKPOINT, "import_parameters": {"format": "onnx"}, **changes})


def test_the_default_recipe_as_steps():
    steps = plan(read_shipped("default"), subject(datasets=DATASETS, profiles=(BoardProfile("arm"),)))
    assert [(step.name, step.kind) for step in steps] == [
        ("import", "compile/import"),
        ("evaluate-baseline", "compile/evaluate"),
        ("quantize-int8", "compile/quantize"),
        ("evaluate-int8", "compile/evaluate"),
    ]
    importing, first, quantizing, second = steps
    assert importing.inputs == {"checkpoint": CHECKPOINT}
    assert importing.parameters == {"format": "onnx"}
    assert first.inputs["model.onnx"] == FromStep("import", "model.onnx")
    assert "baseline.onnx" not in first.inputs
    assert quantizing.inputs["calibration"] == MANIFEST
    assert quantizing.inputs["calibration.pack-0"] == PACK
    assert quantizing.parameters == {"profile": "arm"}
    assert second.inputs["model.onnx"] == FromStep("quantize-int8", "model.onnx")
    assert second.inputs["baseline.onnx"] == FromStep("import", "model.onnx")
    assert [step.makes_variant for step in steps] == [True, False, True, False]


def test_each_profile_of_the_boards_gets_its_own_variants_and_shares_the_rest():
    profiles = (BoardProfile("x86-vnni"), BoardProfile("arm"), BoardProfile("My NPU", {"per_channel": False}))
    steps = plan(read_shipped("default"), subject(datasets=DATASETS, profiles=profiles))
    assert [(step.name, step.profile) for step in steps] == [
        ("import", ""),
        ("evaluate-baseline", ""),
        ("quantize-int8-x86-vnni", "x86-vnni"),
        ("quantize-int8-arm", "arm"),
        ("quantize-int8-my-npu", "My NPU"),
        ("evaluate-int8-x86-vnni", "x86-vnni"),
        ("evaluate-int8-arm", "arm"),
        ("evaluate-int8-my-npu", "My NPU"),
    ]
    assert steps[4].parameters == {"profile": {"per_channel": False}}
    assert steps[7].inputs["model.onnx"] == FromStep("quantize-int8-my-npu", "model.onnx")
    assert {step.dataset for step in steps if step.kind == "compile/evaluate"} == {"evaluation"}


def test_the_users_module_goes_to_import_alone():
    steps = plan(read_shipped("default"), subject(datasets=DATASETS, module=PACK))
    assert [step.name for step in steps if "module" in step.inputs] == ["import"]


def test_two_quantize_passes_work_one_after_the_other_and_evaluate_may_name_either():
    recipe = parse_recipe(
        "version: 1\nname: two\npasses:\n"
        "  - pass: import\n  - pass: quantize\n    variant: a\n    profile: x86\n"
        "  - pass: evaluate\n    variant: baseline\n  - pass: evaluate\n    variant: a\n  - pass: evaluate\n"
    )
    steps = plan(recipe, subject(datasets=DATASETS))
    assert [step.name for step in steps] == ["import", "quantize-a", "evaluate-baseline", "evaluate-a"]
    assert steps[1].parameters["profile"] == "x86"


def test_a_dataset_that_was_not_given_is_told_with_the_line_of_the_pass():
    with pytest.raises(RecipeError, match=r"line \d+: evaluate needs a sealed evaluation dataset"):
        plan(read_shipped("default"), subject(datasets={"calibration": DATASETS["calibration"]}))
