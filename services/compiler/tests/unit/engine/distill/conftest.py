"""Small networks: a classifier of digits and a one-level detector, each in a large and a small edition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from boardwright.compiler.engine.evaluate import Sample
from boardwright.compiler.engine.export import export_network
from boardwright.model import InputSpec, OutputSpec

DIGITS = InputSpec(height=8, width=8, color="GRAY", channels=1, scale=1 / 255, batch=1)
LARGER = InputSpec(
    height=16, width=16, color="GRAY", channels=1, scale=1 / 255, mean=(0.3,), std=(0.4,), batch=1
)
LOGITS = OutputSpec(task="classification", head="logits", num_classes=10)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The same sums on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> Callable[[int, int], list[Sample]]:
    """Return ``digits(start, stop)``: scikit-learn's handwritten digits, shuffled, 8x8 gray."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = (found.images[order] * 255 / 16).astype(np.uint8)

    def samples(start: int, stop: int, *, labels: bool = True) -> list[Sample]:
        return [
            Sample(f"{n:04d}", images[n], class_index=int(found.target[order[n]]) if labels else None)
            for n in range(start, stop)
        ]

    return samples


@pytest.fixture(scope="session")
def teacher(digits) -> onnx.ModelProto:
    """A classifier that reads digits at 16x16, trained on 1000 of them."""
    return export_network(_fitted(_classifier(16, 16), digits(0, 1000), LARGER, epochs=8), LARGER)


@pytest.fixture(scope="session")
def student(digits) -> onnx.ModelProto:
    """A small classifier that reads digits at 8x8, trained on 60 of them."""
    return export_network(_fitted(_classifier(4, 8), digits(0, 60), DIGITS, epochs=30), DIGITS)


@pytest.fixture
def detectors() -> Callable[..., onnx.ModelProto]:
    """Return ``detectors(width, size, seed)``: a grid of candidates with yolov8's head, two classes."""
    return _detector


def _classifier(width: int, size: int) -> torch.nn.Module:
    torch.manual_seed(0)
    side = size // 4
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(width, 2 * width, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(2 * width * side * side, 10),
    )


def _fitted(network, samples, spec, epochs):
    from boardwright.model import preprocess

    inputs = torch.from_numpy(np.concatenate([preprocess(sample.image, spec)[0] for sample in samples]))
    labels = torch.tensor([sample.class_index for sample in samples])
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch)).split(32):
            loss = torch.nn.functional.cross_entropy(network(inputs[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


class _Grid(torch.nn.Module):
    """Boxes of about 8 pixels around each cell's centre, and a chance of each class: (N, 6, cells)."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, width, 3, 2, 1), torch.nn.ReLU(),
            torch.nn.Conv2d(width, width, 3, 2, 1), torch.nn.ReLU(),
        )  # fmt: skip
        self.head = torch.nn.Conv2d(width, 6, 1)
        cells = size // 4
        row, column = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
        self.register_buffer("centres", (torch.stack([column, row]).flatten(1) + 0.5) * 4)
        self.cells = cells * cells

    def forward(self, images):
        raw = self.head(self.body(images)).reshape(images.shape[0], 6, self.cells)
        centre = self.centres + 4 * torch.tanh(raw[:, :2])
        size = 8 * torch.exp(torch.tanh(raw[:, 2:4]))
        return torch.cat([centre, size, torch.sigmoid(raw[:, 4:] - 1)], 1)


def _detector(width: int, size: int, seed: int) -> onnx.ModelProto:
    torch.manual_seed(seed)
    spec = InputSpec(height=size, width=size, name="images", batch=1)
    return export_network(_Grid(width, size), spec)
