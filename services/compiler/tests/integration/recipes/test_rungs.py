"""The recipes that `optimize` climbs (pruned: test_pruned), and those that reports compare by, on digits."""

from __future__ import annotations

import pytest

from boardwright.compiler.recipes import read_shipped
from boardwright.samples import FoundSample

from .conftest import DIGITS

IMPORT = {"format": "onnx", "task": "classification", "input_spec": DIGITS.to_json()}
QUANTIZED = {"QuantizeLinear", "DequantizeLinear"}


@pytest.fixture
def datasets(digits) -> dict[str, list[FoundSample]]:
    """Samples of the digits by role."""
    return {"calibration": digits[1][:60], "evaluation": digits[1][1000:1100]}


@pytest.mark.parametrize("name", ["quick", "default", "mixed", "trained"])
def test_every_rung_gives_an_int8_graph_that_still_tells_digits_apart(run_recipe, digits, datasets, name):
    checkpoint, _ = digits
    recipe = read_shipped(name)
    ran = run_recipe(
        recipe, checkpoint, IMPORT, datasets, "classification", epochs=1, work=1e6, measured_units=4
    )
    variant = recipe.variants[-1]
    made = next(step for step in ran.steps if step.endswith(f"-{variant}") and not step.startswith("eval"))
    assert {node.op_type for node in ran.model(made).graph.node} >= QUANTIZED
    before = ran.figure("evaluate-baseline", "top1")
    assert before > 0.9 and ran.figure(f"evaluate-{variant}", "top1") > before - 0.05


def test_the_comparison_differs_in_just_what_it_compares(run_recipe, digits, datasets):
    checkpoint, _ = digits
    ran = run_recipe(
        read_shipped("comparison"), checkpoint, IMPORT, datasets, "classification",
        runs=5, measured_units=4, torch=False,
    )  # fmt: skip
    values = {name: ran.steps[f"quantize-{name}"].values for name in ("static", "per-tensor", "samples-10")}
    assert values["static"]["scheme"].endswith("per-channel")
    assert values["per-tensor"]["scheme"].endswith("per-tensor")
    assert (values["static"]["calibration_samples"], values["samples-10"]["calibration_samples"]) == (60, 10)
    kinds = {node.op_type for node in ran.model("quantize-dynamic-dynamic").graph.node}
    assert "DynamicQuantizeLinear" in kinds
    exact = ran.figure("evaluate-baseline", "top1")
    assert ran.figure("evaluate-fp16", "top1") == pytest.approx(exact, abs=0.01)
    assert ran.steps["convert-float16-fp16"].values["faster_kernels"] is False
    assert ran.steps["diagnose-static"].values["verdict"] and "profile-baseline" in ran.steps


def test_pruning_ratios_remove_more_and_more(run_recipe, digits, datasets):
    checkpoint, _ = digits
    ran = run_recipe(read_shipped("pruning-ratios"), checkpoint, IMPORT, datasets, "classification")
    removed = [ran.steps[f"prune-pruned-{n}"].values["removed"]["macs"] for n in (10, 20, 30, 40, 50)]
    assert removed == sorted(removed) and removed[0] > 0.02 and removed[-1] > 0.4
    assert ran.figure("evaluate-pruned-10", "top1") > 0.85
