"""A small depthwise classifier of handwritten digits, trained here, and its samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits

from boardwright.compiler.engine.evaluate import Sample, evaluate
from boardwright.compiler.engine.export import export_network
from boardwright.model import InputSpec, OutputSpec, preprocess


@dataclass(frozen=True)
class Digits:
    """The graph with its specs; ``learnt`` are samples it was trained on, ``unseen`` others."""

    model: onnx.ModelProto
    input_spec: InputSpec
    output_spec: OutputSpec
    learnt: list[Sample]
    unseen: list[Sample]

    def feeds(self, count: int = 100) -> Iterator[dict[str, np.ndarray]]:
        for sample in self.learnt[:count]:
            yield {"input": preprocess(sample.image, self.input_spec)[0]}

    def top1(self, model: onnx.ModelProto) -> float:
        return evaluate(model, self.unseen, self.input_spec, self.output_spec).accuracy["top1"]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Sums in one order: figures do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits(one_thread) -> Digits:
    """Depthwise and pointwise layers whose channels differ up to 64-fold, as folded batch norms leave them.

    Scaling a depthwise channel up and the next layer's weights for it down changes nothing in float.
    """
    torch.manual_seed(0)
    images, labels = _images()
    network = _network()
    _fit(network, images[:1000], labels[:1000])
    network = _folded(network)
    _spread_channels(network)
    input_spec = InputSpec(height=8, width=8, color="GRAY", channels=1, batch=1, resize="none")
    samples = [
        Sample(str(number), image, class_index=int(label))
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return Digits(
        export_network(network, input_spec),
        input_spec,
        OutputSpec(task="classification", head="logits", num_classes=10),
        samples[:1000],
        samples[1000:1300],
    )


def _images() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return (found.images[order] * 15).astype(np.uint8), found.target[order]


def _network() -> torch.nn.Sequential:
    def normed(layer: torch.nn.Conv2d) -> list[torch.nn.Module]:
        return [layer, torch.nn.BatchNorm2d(layer.out_channels), torch.nn.ReLU()]

    def block(given: int, made: int, stride: int) -> list[torch.nn.Module]:
        depthwise = torch.nn.Conv2d(given, given, 3, stride, 1, groups=given)
        return [*normed(depthwise), *normed(torch.nn.Conv2d(given, made, 1))]

    return torch.nn.Sequential(
        *normed(torch.nn.Conv2d(1, 16, 3, 1, 1)),
        *block(16, 24, 1),
        *block(24, 32, 2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    )


def _folded(network: torch.nn.Sequential) -> torch.nn.Sequential:
    layers = list(network)
    kept = []
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(following, torch.nn.BatchNorm2d):
            kept.append(torch.nn.utils.fusion.fuse_conv_bn_eval(layer, following))
        elif not isinstance(layer, torch.nn.BatchNorm2d):
            kept.append(layer)
    return torch.nn.Sequential(*kept)


def _fit(network: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    inputs, wanted = torch.tensor(images[:, None] / 255.0, dtype=torch.float32), torch.tensor(labels)
    epochs = 8
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for chosen in torch.randperm(len(inputs)).split(50):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[chosen]), wanted[chosen]).backward()
            optimizer.step()
        schedule.step()
    network.eval()


def _spread_channels(network: torch.nn.Sequential) -> None:
    rng = np.random.default_rng(0)
    layers = [layer for layer in network if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for depthwise, pointwise in zip(layers[1::2], layers[2::2], strict=True):
            factor = torch.tensor(2.0 ** rng.uniform(-4, 4, depthwise.out_channels), dtype=torch.float32)
            depthwise.weight *= factor[:, None, None, None]
            depthwise.bias *= factor
            pointwise.weight /= factor[None, :, None, None]
