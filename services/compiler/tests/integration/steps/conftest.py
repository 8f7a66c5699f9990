"""Steps in their own process, as a worker runs them, or in this one, on datasets made here."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boardwright.compiler.kinds import KINDS
from boardwright.content import digest_file
from boardwright.jobs.domain.cache_key import with_defaults
from boardwright.jobs.executor import Execution, ExecutionResult
from boardwright.jobs.step import find_function
from boardwright.jobs.step_api import InputFile, StepRequest, StepResult, ignore_progress
from boardwright.jobs.subprocess_executor import SubprocessExecutor
from boardwright.samples import DatasetManifest, FoundSample, ManifestSample, PackEntry, write_packs

RunStep = Callable[..., Awaitable[ExecutionResult]]


@pytest.fixture
def run_step(tmp_path: Path) -> RunStep:
    """Return ``run_step(kind, parameters, {input: path})``, which runs a step in a confined process.

    Further arguments are the execution's.
    """
    numbers = itertools.count()

    async def run(
        kind: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path], **further: Any
    ) -> ExecutionResult:
        folder = tmp_path / f"step-{next(numbers)}"
        folder.mkdir()
        given = {
            name: InputFile(path, str(digest_file(path)), "application/octet-stream")
            for name, path in inputs.items()
        }
        execution = Execution(
            folder,
            kind,
            with_defaults(KINDS[kind], parameters),
            given,
            environment=KINDS[kind].environment(),
            **{"requires": KINDS[kind].requires, **further},
        )
        return await SubprocessExecutor().run(execution, lambda report: None)

    return run


@pytest.fixture
def run_here(tmp_path: Path) -> Callable[..., StepResult]:
    """Return ``run_here(kind, parameters, {input: path})``, which runs a step in this process.

    For what a step answers, where its process does not matter: starting one costs seconds.
    """
    numbers = itertools.count()

    def run(kind: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path]) -> StepResult:
        folder = tmp_path / f"here-{next(numbers)}"
        folder.mkdir()
        given = {name: InputFile(path, str(digest_file(path)), "") for name, path in inputs.items()}
        told = json.loads(json.dumps(with_defaults(KINDS[kind], parameters)))
        result = find_function(kind)(StepRequest(kind, told, given, 0, folder), ignore_progress)
        assert all(output.path.is_relative_to(folder) for output in result.outputs.values())
        json.dumps(dict(result.values), allow_nan=False)  # as the process writes them
        return result

    return run


@pytest.fixture
def seal() -> Callable[..., dict[str, Path]]:
    """Return ``seal(samples, task, folder, role)``: a sealed dataset as a step's inputs."""
    return _seal


@pytest.fixture
def coloured() -> Callable[[int, int], list[FoundSample]]:
    """Return ``coloured(count, seed)``: images whose strongest channel is their class."""
    return lambda count, seed: list(_coloured(count, seed))


def _seal(samples: list[FoundSample], task: str, folder: Path, role: str) -> dict[str, Path]:
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
    paths = {pack.digest: pack.path for pack in packs if pack.path}
    return {role: path} | {f"{role}.pack-{index[digest]}": file for digest, file in paths.items()}


def _encoded(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


def _coloured(count: int, seed: int) -> Iterator[FoundSample]:
    rng = np.random.default_rng(seed)
    for number in range(count):
        image = rng.integers(0, 120, (20, 24, 3), dtype=np.uint8)
        image[:, :, number % 3] += 100
        yield FoundSample(f"{number:03d}.png", _encoded(image), "image/png", number % 3)
