"""The shipped recipe pruned, and the pass's other kinds, in the real step processes on digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from boardwright.compiler.engine.export import export_network
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.compiler.recipes import parse_recipe, read_shipped
from boardwright.model import InputSpec
from boardwright.samples import FoundSample

from .conftest import found_sample

DIGITS = InputSpec(height=8, width=8, color="GRAY", channels=1, scale=1 / 255, batch=1)
TOLD = {"format": "onnx", "task": "classification", "input_spec": DIGITS.to_json()}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tuple[Path, list[FoundSample]]:
    """A classifier of scikit-learn's digits, trained on 800 of them, and samples of all."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * 255 / 16).astype(np.uint8)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2, 1),
        torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(128, 10),
    )  # fmt: skip
    inputs, labels = torch.from_numpy(images[:800, None] / np.float32(255)), torch.from_numpy(found.target)
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(8):
        for chosen in torch.randperm(800).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[chosen]), labels[:800][chosen]).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    onnx.save(export_network(network.eval(), DIGITS), path)
    samples = zip(images, found.target, strict=True)
    return path, [found_sample(f"{n:04d}", image, int(label)) for n, (image, label) in enumerate(samples)]


def test_pruned_tuned_and_quantized_keeps_its_accuracy_with_a_third_less_work(run_recipe, digits, tmp_path):
    checkpoint, samples = digits
    datasets = {"calibration": samples[:200], "evaluation": samples[1000:1200]}
    recipe = read_shipped("pruned")
    ran = run_recipe(recipe, checkpoint, TOLD, datasets, "classification", epochs=2, batch_size=32)
    pruned = ran.steps["prune-pruned"].values
    assert 0.32 < pruned["removed"]["macs"] < 0.45
    assert pruned["after"]["parameters"] < pruned["before"]["parameters"]
    assert pruned["output_error"] < pruned["output_error_without_compensation"]
    baseline = ran.figure("evaluate-baseline", "top1")
    assert baseline > 0.9
    assert ran.figure("evaluate-pruned-tuned", "top1") > baseline - 0.04
    assert ran.figure("evaluate-pruned-int8", "top1") > baseline - 0.05
    tuned = ran.model("fine-tune-pruned-tuned")
    widths = {t.name: list(t.dims) for t in ran.model("prune-pruned").graph.initializer if len(t.dims) > 1}
    assert widths == {t.name: list(t.dims) for t in tuned.graph.initializer if len(t.dims) > 1}
    path = tmp_path / "again.onnx"
    onnx.save(tuned, path)
    again = import_checkpoint(path, Declared(task="classification", input_spec=DIGITS))
    assert {t.name: list(t.dims) for t in again.model.graph.initializer if len(t.dims) > 1} == widths


def test_zeros_are_recorded_with_what_they_do_not_do(run_recipe, digits):
    checkpoint, samples = digits
    recipe = parse_recipe(
        "version: 1\nname: sparse\npasses:\n  - pass: import\n"
        "  - pass: prune\n    structure: weights\n    amount: 0.6\n"
    )
    ran = run_recipe(recipe, checkpoint, TOLD, {"calibration": samples[:40]}, "classification")
    step = ran.steps["prune-pruned"]
    assert step.values["sparsity"] == pytest.approx(0.6, abs=0.01)
    assert step.values["compressed_bytes"] < 0.75 * step.values["compressed_before_bytes"]
    assert any("runs as fast as before" in warning for warning in step.warnings)
    record = json.loads(step.outputs["pruning.json"].path.read_text())
    assert record["information"]["kept"]
