"""Recipes run from plan to last step in this process, on small trained models and sealed datasets."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from boardwright.compiler.domain.plan import DatasetContent, FromStep, Given, Subject, plan
from boardwright.compiler.domain.recipe import Recipe
from boardwright.compiler.engine.export import export_network
from boardwright.compiler.kinds import KINDS
from boardwright.content import digest_file
from boardwright.jobs.domain.cache_key import with_defaults
from boardwright.jobs.step_api import ENTRY_POINT_GROUP, InputFile, StepRequest, StepResult
from boardwright.model import InputSpec
from boardwright.samples import DatasetManifest, FoundSample, ManifestSample, PackEntry, write_packs
from boardwright.samples.labels import Label


@dataclass(frozen=True)
class Ran:
    """What a recipe's steps gave, by step, in order."""

    steps: Mapping[str, StepResult]

    def model(self, step: str) -> onnx.ModelProto:
        """The graph that a step made."""
        return onnx.load(self.steps[step].outputs["model.onnx"].path)

    def figure(self, step: str, name: str) -> float:
        """A figure of accuracy that an evaluate step measured."""
        return float(self.steps[step].values["accuracy"][name])


RunRecipe = Callable[..., Ran]
DIGITS = InputSpec(height=8, width=8, color="GRAY", channels=1, scale=1 / 255, batch=1)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The same sums on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FoundSample]]:
    """A classifier of scikit-learn's digits, trained on 800 of them, and samples of all."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * 255 / 16).astype(np.uint8)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(128, 10),
    )  # fmt: skip
    inputs, labels = (
        torch.from_numpy(images[:800, None] / np.float32(255)),
        torch.from_numpy(found.target[:800]),
    )
    fit(network, inputs, lambda out, chosen: torch.nn.functional.cross_entropy(out, labels[chosen]), 8)
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    onnx.save(export_network(network, DIGITS), path)
    samples = zip(images, found.target, strict=True)
    return path, [found_sample(f"{n:04d}", image, int(label)) for n, (image, label) in enumerate(samples)]


@pytest.fixture
def run_recipe(tmp_path: Path) -> RunRecipe:
    """Return ``run_recipe(recipe, checkpoint, import_parameters, {role: samples}, task, **overrides)``.

    ``overrides`` are parameters that every pass which knows them gets: a test has no time for an hour.
    """

    def run(
        recipe: Recipe,
        checkpoint: Path,
        importing: Mapping[str, Any],
        datasets: Mapping[str, list[FoundSample]],
        task: str,
        **overrides: Any,
    ) -> Ran:
        files: dict[str, Path] = {}
        subject = Subject(
            checkpoint=_given(checkpoint, files),
            import_parameters=importing,
            datasets={role: _seal(found, task, tmp_path / role, files) for role, found in datasets.items()},
        )
        points = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
        done: dict[str, StepResult] = {}
        for step in plan(recipe, subject):
            folder = tmp_path / step.name
            folder.mkdir()
            inputs = {}
            for name, source in step.inputs.items():
                path = (
                    done[source.step].outputs[source.output].path
                    if isinstance(source, FromStep)
                    else files[source.digest]
                )
                inputs[name] = InputFile(path, str(digest_file(path)), "")
            kind = KINDS[step.kind]
            shortened = {name: value for name, value in overrides.items() if name in kind.defaults}
            told = with_defaults(kind, {**shortened, **step.parameters})
            request = StepRequest(kind.name, json.loads(json.dumps(told)), inputs, 0, folder)
            done[step.name] = points[kind.name].load()(request, lambda *_: None)
        return Ran(done)

    return run


def fit(
    network: torch.nn.Module,
    inputs: torch.Tensor,
    loss_of: Callable[[Any, torch.Tensor], torch.Tensor],
    epochs: int,
    rate: float = 3e-3,
) -> None:
    """Train with AdamW in batches of 32; ``loss_of(outputs, indices)`` is what falls."""
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(epoch))
        for chosen in order.split(32):
            loss = loss_of(network(inputs[chosen]), chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()


def found_sample(name: str, image: np.ndarray | Image.Image, label: Label) -> FoundSample:
    """An image as a dataset takes it in."""
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, "png")
    return FoundSample(name, stream.getvalue(), "image/png", label)


def _given(path: Path, files: dict[str, Path]) -> Given:
    digest = str(digest_file(path))
    files[digest] = path
    return Given(digest, path.stat().st_size, "application/octet-stream")


def _seal(samples: list[FoundSample], task: str, folder: Path, files: dict[str, Path]) -> DatasetContent:
    folder.mkdir()
    packs = list(write_packs(samples, folder))
    entries = sorted((pack.digest, pack.size_bytes) for pack in packs if pack.path)
    index = {digest: number for number, (digest, _) in enumerate(entries)}
    sealed = sorted(
        (
            ManifestSample(
                s.name, s.digest, s.size_bytes, s.media_type, index[s.pack_digest], s.pack_offset, s.label
            )
            for pack in packs
            for s in pack.samples
        ),
        key=lambda sample: sample.name,
    )
    manifest = DatasetManifest(task, (), tuple(PackEntry(*entry) for entry in entries), tuple(sealed))
    path = folder / "manifest.json"
    path.write_bytes(manifest.to_bytes())
    by_digest = {pack.digest: _given(pack.path, files) for pack in packs if pack.path}
    return DatasetContent(folder.name, _given(path, files), tuple(by_digest[digest] for digest, _ in entries))
