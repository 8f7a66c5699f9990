"""Networks as graphs, and a classifier of digits that was trained here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits

from boardwright.compiler.engine.evaluate import Sample, evaluate
from boardwright.compiler.engine.export import export_network
from boardwright.model import InputSpec, OutputSpec


@pytest.fixture(scope="session")
def networks() -> ModuleType:
    """The module ``networks`` beside this file."""
    spec = importlib.util.spec_from_file_location("pruned_networks", Path(__file__).with_name("networks.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def graph(networks) -> Callable[[str], onnx.ModelProto]:
    """Return ``graph(name)``: a network of ``networks`` with seeded weights, 16x16 px."""

    def build(name: str) -> onnx.ModelProto:
        torch.manual_seed(0)
        spec = InputSpec(height=16, width=16, batch=1, resize="none")
        return export_network(getattr(networks, name)().eval(), spec)

    return build


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    """Sixteen seeded inputs of those graphs."""
    rng = np.random.default_rng(1)
    return [{"input": rng.random((1, 3, 16, 16), dtype=np.float32)} for _ in range(16)]


@dataclass(frozen=True)
class Digits:
    """A trained classifier, what it learnt, and 300 digits that it did not."""

    model: onnx.ModelProto
    input_spec: InputSpec
    output_spec: OutputSpec
    learnt: list[dict[str, np.ndarray]]
    samples: list[Sample]
    unseen: list[Sample]

    def top1(self, model: onnx.ModelProto) -> float:
        return evaluate(model, self.unseen, self.input_spec, self.output_spec).accuracy["top1"]


@pytest.fixture(scope="session")
def digits() -> Digits:
    """A residual network with batch norms, 97 % and better on digits it has not seen."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images, labels = (found.images[order] * 15).astype(np.uint8), found.target[order]
    network = _Reader()
    _fit(network, torch.tensor(images[:1200, None] / 255.0, dtype=torch.float32), torch.tensor(labels[:1200]))
    torch.set_num_threads(threads)
    spec = InputSpec(height=8, width=8, color="GRAY", channels=1, batch=1, resize="none")
    samples = [
        Sample(str(number), image, class_index=int(label))
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    learnt = [{"input": (image[None, None] / 255.0).astype(np.float32)} for image in images[:128]]
    output_spec = OutputSpec(task="classification", head="logits", num_classes=10)
    model = export_network(network.eval(), spec)
    return Digits(model, spec, output_spec, learnt, samples[:1200], samples[1200:1500])


class _Reader(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def normed(given: int, made: int, stride: int = 1) -> torch.nn.Sequential:
            layer = torch.nn.Conv2d(given, made, 3, stride, 1, bias=False)
            return torch.nn.Sequential(layer, torch.nn.BatchNorm2d(made), torch.nn.ReLU())

        self.stem, self.inner, self.back = normed(1, 16), normed(16, 32), normed(32, 16)
        self.down, self.last = normed(16, 48, 2), torch.nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.back(self.inner(x))
        return self.last(self.down(x).mean((2, 3)))


def _fit(network: torch.nn.Module, inputs: torch.Tensor, wanted: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    for _ in range(6):
        for chosen in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[chosen]), wanted[chosen]).backward()
            optimizer.step()
        schedule.step()
