"""The recipes that `optimize` climbs, and those that reports compare by, on a small trained classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from boardwright.compiler.engine.export import export_network
from boardwright.compiler.recipes import read_shipped
from boardwright.model import InputSpec
from boardwright.samples import FoundSample

from .conftest import found_sample

SPEC = InputSpec(height=8, width=8, color="GRAY", channels=1, scale=1 / 255, batch=1)
IMPORT = {"format": "onnx", "task": "classification", "input_spec": SPEC.to_json()}
QUANTIZED = {"QuantizeLinear", "DequantizeLinear"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tuple[Path, dict[str, list[FoundSample]]]:
    """A classifier of scikit-learn's digits, and samples of them by role."""
    from sklearn.datasets import load_digits

    held = load_digits()
    images = (held.images * 255 / 16).astype(np.uint8)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(128, 10),
    )  # fmt: skip
    inputs, labels = torch.from_numpy(images[:800, None] / np.float32(255)), torch.from_numpy(held.target)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(8):
        for chosen in torch.randperm(800).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("rungs") / "digits.onnx"
    onnx.save(export_network(network.eval(), SPEC), path)
    samples = [
        found_sample(f"{n:04d}", image, int(label))
        for n, (image, label) in enumerate(zip(images, held.target, strict=True))
    ]
    return path, {"calibration": samples[:60], "evaluation": samples[1000:1100]}


@pytest.mark.parametrize("name", ["quick", "default", "mixed", "trained", "pruned"])
def test_every_rung_gives_an_int8_graph_that_still_tells_digits_apart(run_recipe, digits, name):
    checkpoint, datasets = digits
    recipe = read_shipped(name)
    ran = run_recipe(
        recipe, checkpoint, IMPORT, datasets, "classification", epochs=1, work=1e6, measured_units=4
    )
    variant = recipe.variants[-1]
    made = next(step for step in ran.steps if step.endswith(f"-{variant}") and not step.startswith("eval"))
    assert {node.op_type for node in ran.model(made).graph.node} >= QUANTIZED
    before = ran.figure("evaluate-baseline", "top1")
    assert before > 0.9 and ran.figure(f"evaluate-{variant}", "top1") > before - 0.05


def test_the_comparison_differs_in_just_what_it_compares(run_recipe, digits):
    checkpoint, datasets = digits
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


def test_pruning_ratios_remove_more_and_more(run_recipe, digits):
    checkpoint, datasets = digits
    ran = run_recipe(read_shipped("pruning-ratios"), checkpoint, IMPORT, datasets, "classification")
    removed = [ran.steps[f"prune-pruned-{n}"].values["removed"]["macs"] for n in (10, 20, 30, 40, 50)]
    assert removed == sorted(removed) and removed[0] > 0.02 and removed[-1] > 0.4
    assert ran.figure("evaluate-pruned-10", "top1") > 0.85
