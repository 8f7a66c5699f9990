"""The optimizer of recovery: Adam, without what torch's own brings along."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from boardwright.compiler.engine.recover.descent import Descent


@pytest.mark.parametrize("falls", [True, False])
def test_it_moves_as_torchs_adam_does(falls):
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, generator=generator), torch.randn(3, generator=generator)]
    aim, updates, rates = torch.randn(4, 3, generator=generator), 12, (0.05, 0.01)

    def loss(values):
        return ((values[0] * values[1] - aim) ** 2).mean()

    ours = [value.clone().requires_grad_(True) for value in start]
    theirs = [value.clone().requires_grad_(True) for value in start]
    descent = Descent(list(zip(ours, rates, strict=True)), updates if falls else 0)
    groups = [{"params": [value], "lr": rate} for value, rate in zip(theirs, rates, strict=True)]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, updates)
    for _ in range(updates):
        descent.step(loss(ours))
        adam.zero_grad()
        loss(theirs).backward()
        adam.step()
        if falls:
            schedule.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(one, before)


def test_tensors_without_a_gradient_stay():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    Descent([(used, 0.1), (unused, 0.1)]).step((used**2).sum())
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


_SMALL = """
import sys, torch
from onnx import helper
from boardwright.compiler.engine.recover.descent import Descent
from boardwright.compiler.engine.training.layers import make_layer
node = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3])
layer = make_layer(node, {"w": torch.ones(4, 2, 3, 3), "b": torch.ones(4)}, {"x": 4})
assert torch.equal(layer.module.weight, torch.ones(4, 2, 3, 3))
Descent([(layer.module.weight, 0.1)]).step((layer([torch.ones(1, 2, 5, 5)]) ** 2).sum())
assert not torch.equal(layer.module.weight, torch.ones(4, 2, 3, 3))
print("torch._dynamo" in sys.modules)
"""


def test_learning_does_not_load_torchs_compiler():
    """Loading it takes longer than a small network takes to learn."""
    found = subprocess.run([sys.executable, "-c", _SMALL], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
