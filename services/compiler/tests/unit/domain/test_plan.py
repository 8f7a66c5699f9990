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
        ("observe-baseline", "compile/observe"),
        ("recover-baseline", "compile/recover"),
        ("quantize-int8", "compile/quantize"),
        ("evaluate-int8", "compile/evaluate"),
    ]
    importing, first, _, recovering, quantizing, second = steps
    assert importing.inputs == {"checkpoint": CHECKPOINT}
    assert importing.parameters == {"format": "onnx"}
    assert first.inputs["model.onnx"] == FromStep("import", "model.onnx")
    assert "baseline.onnx" not in first.inputs
    assert quantizing.inputs["calibration"] == MANIFEST
    assert quantizing.inputs["calibration.pack-0"] == PACK
    assert recovering.parameters == quantizing.parameters == {"profile": "arm"}
    record = FromStep("observe-baseline", "calibration-record.json")
    assert recovering.inputs["calibration-record.json"] == record
    assert quantizing.inputs["calibration-record.json"] == record
    assert quantizing.inputs["recovered.onnx"] == FromStep("recover-baseline", "recovered.onnx")
    assert second.inputs["model.onnx"] == FromStep("quantize-int8", "model.onnx")
    assert second.inputs["baseline.onnx"] == FromStep("import", "model.onnx")
    assert [step.makes_variant for step in steps] == [True, False, False, False, True, False]


def test_each_profile_of_the_boards_gets_its_own_variants_and_shares_the_rest():
    profiles = (BoardProfile("x86-vnni"), BoardProfile("arm"), BoardProfile("My NPU", {"per_channel": False}))
    steps = plan(read_shipped("default"), subject(datasets=DATASETS, profiles=profiles))
    assert [(step.name, step.profile) for step in steps] == [
        ("import", ""),
        ("evaluate-baseline", ""),
        ("observe-baseline", ""),
        ("recover-baseline-x86-vnni", ""),
        ("recover-baseline-arm", ""),
        ("recover-baseline-my-npu", ""),
        ("quantize-int8-x86-vnni", "x86-vnni"),
        ("quantize-int8-arm", "arm"),
        ("quantize-int8-my-npu", "My NPU"),
        ("evaluate-int8-x86-vnni", "x86-vnni"),
        ("evaluate-int8-arm", "arm"),
        ("evaluate-int8-my-npu", "My NPU"),
    ]
    assert steps[8].parameters == {"profile": {"per_channel": False}}
    assert steps[8].inputs["recovered.onnx"] == FromStep("recover-baseline-my-npu", "recovered.onnx")
    assert steps[11].inputs["model.onnx"] == FromStep("quantize-int8-my-npu", "model.onnx")
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


ABLATION = """
version: 1
name: two-factors
passes:
  - pass: import
  - pass: evaluate
  - pass: quantize
  - pass: evaluate
  - pass: quantize-dynamic
    from: baseline
    variant: dynamic
{evaluated}  - pass: ablate
    experiments: {{int8: [static], dynamic: [dynamic]}}
"""


def test_an_ablation_reads_the_graphs_and_evaluations_of_its_experiments():
    recipe = parse_recipe(ABLATION.format(evaluated="  - pass: evaluate\n"))
    steps = plan(recipe, subject(datasets=DATASETS))
    last = steps[-1]
    assert last.kind == "compile/ablate" and not last.makes_variant
    assert last.inputs["baseline.evaluation.json"] == FromStep("evaluate-baseline", "evaluation.json")
    assert last.inputs["int8.model.onnx"] == FromStep("quantize-int8", "model.onnx")
    assert last.inputs["dynamic.evaluation.json"] == FromStep("evaluate-dynamic", "evaluation.json")
    dynamic = next(step for step in steps if step.kind == "compile/quantize-dynamic")
    assert dynamic.inputs["model.onnx"] == FromStep("import", "model.onnx")


def test_an_experiment_has_to_be_evaluated_before_it_is_compared():
    with pytest.raises(RecipeError, match="compares 'dynamic': evaluate it before"):
        plan(parse_recipe(ABLATION.format(evaluated="")), subject(datasets=DATASETS))


def test_files_about_a_graph_stay_with_it():
    text = "version: 1\nname: r\npasses:\n  - pass: import\n  - pass: protect\n  - pass: quantize\n"
    steps = plan(parse_recipe(text), subject(datasets=DATASETS))
    assert steps[-1].inputs["protection.json"] == FromStep(steps[1].name, "protection.json")
    again = text + "  - pass: quantize-dynamic\n    from: int8\n"
    assert "protection.json" not in plan(parse_recipe(again), subject(datasets=DATASETS))[-1].inputs


def test_a_pass_cannot_start_from_a_variant_that_is_not_made_yet():
    text = "version: 1\nname: r\npasses:\n  - pass: import\n  - pass: quantize\n    from: pruned\n"
    with pytest.raises(RecipeError, match="starts from the variant 'pruned', which no pass before it makes"):
        parse_recipe(text)


def test_a_board_with_shifts_for_scales_and_one_with_float16_each_get_their_own():
    text = """
version: 1
name: halves
description: Float16 and integers, for each board.
passes:
  - pass: import
  - pass: convert-float16
  - pass: evaluate
  - pass: quantize
    from: baseline
"""
    profiles = (BoardProfile("tidl-mma1"), BoardProfile("tensorrt"))
    steps = plan(parse_recipe(text), subject(datasets=DATASETS, profiles=profiles))
    made = {step.name: step for step in steps if step.makes_variant}
    assert set(made) == {
        "import", "convert-float16-fp16-tidl-mma1", "convert-float16-fp16-tensorrt",
        "quantize-int8-tidl-mma1", "quantize-int8-tensorrt",
    }  # fmt: skip
    assert made["quantize-int8-tidl-mma1"].parameters["profile"] == "tidl-mma1"
    assert made["quantize-int8-tidl-mma1"].profile == "tidl-mma1"
    half = made["convert-float16-fp16-tensorrt"]
    assert (half.parameters["profile"], half.profile) == ("tensorrt", "")  # a float graph serves any board
