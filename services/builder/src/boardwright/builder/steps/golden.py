"""Golden samples of an artifact: inputs from real samples or seeded noise, outputs from its real runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from boardwright.builder.domain.tolerance import Tolerance, choose_tolerance
from boardwright.builder.steps.kinds import DATASET, PACK_PREFIX
from boardwright.jobs.step_api import StepError, StepRequest
from boardwright.model.golden import GoldenSamples
from boardwright.model.input_spec import InputSpec
from boardwright.toolchains.port import Session, TensorInfo

RAW_BUDGET_BYTES = 16 << 20
"""Of inputs and outputs together, before compression: devices download them with every artifact."""

Tensor = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Golden:
    """Golden samples, how their tolerance was chosen, and where the inputs come from."""

    samples: GoldenSamples
    tolerance: Tolerance
    source: str
    warnings: tuple[str, ...]


def check_input(spec: InputSpec, inputs: Sequence[TensorInfo]) -> None:
    """Refuse a graph that the spec does not feed, one image at a time.

    Raises:
        StepError: INPUT_SPEC_DOES_NOT_FIT, GRAPH_INPUTS_UNSUPPORTED, GRAPH_BATCH_UNSUPPORTED.
    """
    from boardwright.model.errors import ModelError

    try:
        spec.check_against({info.name: (list(info.shape), info.dtype) for info in inputs})
    except ModelError as error:
        raise StepError(error.reason, str(error)) from error
    others = [info.name for info in inputs if info.name != spec.name]
    if others:
        raise StepError(
            "GRAPH_INPUTS_UNSUPPORTED",
            f"The graph has inputs besides {spec.name!r}: {', '.join(others)}. Only graphs of one image "
            "input can be built; fold the others into constants.",
        )
    batch = inputs[0].shape[0]
    if batch not in (None, 1):
        raise StepError(
            "GRAPH_BATCH_UNSUPPORTED",
            f"The graph takes {batch} images at once; devices run one. Export it with batch 1 or none fixed.",
        )


def golden_inputs(request: StepRequest, spec: InputSpec, count: int) -> tuple[Tensor, str]:
    """Return up to ``count`` inputs (the first axis is the sample) and where they come from.

    With a dataset, samples are spread evenly over it; else noise from the step's seed over the whole range
    that the spec's pixels can take.
    """
    if DATASET in request.inputs:
        return _dataset_inputs(request, spec, count)
    from boardwright.model.preprocessing import preprocess_batch

    random = np.random.default_rng(request.seed)
    shape = (count, spec.height, spec.width) + ((3,) if spec.channels == 3 else ())
    # Coarse patches rather than white noise, which a network averages away.
    coarse = random.integers(0, 256, (count, *(max(1, side // 8) for side in shape[1:3]), *shape[3:]))
    rows = np.arange(spec.height) * coarse.shape[1] // spec.height
    columns = np.arange(spec.width) * coarse.shape[2] // spec.width
    images = coarse[:, rows][:, :, columns].astype(np.uint8)
    as_is = replace(spec, resize="none", resize_shorter=None, batch=None)
    return preprocess_batch(list(images), as_is)[0], f"seeded noise (seed {request.seed})"


def _dataset_inputs(request: StepRequest, spec: InputSpec, count: int) -> tuple[Tensor, str]:
    from boardwright.model.preprocessing import preprocess_batch
    from boardwright.samples import DatasetManifest, DatasetReader, SampleError
    from boardwright.samples.reader import spread

    given = request.input(DATASET)
    packs = {file.digest: file.path for name, file in request.inputs.items() if name.startswith(PACK_PREFIX)}
    try:
        manifest = DatasetManifest.from_bytes(given.path.read_bytes())
        # Those whose packs were fetched: as many as were asked for, of which ``count`` fit the budget.
        found = list(DatasetReader(manifest, packs).samples(int(request.parameters["golden_samples"])))
        samples = [found[index] for index in spread(len(found), count)]
    except SampleError as error:
        raise StepError(error.reason, error.message) from error
    if not samples:
        raise StepError("DATASET_EMPTY", "The dataset for golden samples is empty; choose another one.")
    names = ", ".join(sample.name for sample in samples)
    tensor = preprocess_batch([sample.image for sample in samples], spec)[0]
    return tensor, f"dataset {given.digest}: {names}"


def fitting_count(wanted: int, spec: InputSpec, outputs: Sequence[TensorInfo]) -> int:
    """Return how many samples stay within the budget, at least 1 and at most ``wanted``."""
    _, *axes = spec.shape
    size = int(np.prod([axis or 1 for axis in axes])) * np.dtype(spec.dtype).itemsize
    for info in outputs:
        size += int(np.prod([axis or 1 for axis in info.shape[1:]])) * np.dtype(info.dtype).itemsize
    return max(1, min(wanted, RAW_BUDGET_BYTES // max(1, size)))


def make_golden(
    inputs: Tensor, source: str, name: str, session: Session, others: Sequence[Session], integer_graph: bool
) -> Golden:
    """Run the artifact and, for the tolerance, the same graph through other kernels.

    ``session`` is the artifact in its own runtime; ``others`` open the graph it was built from.
    """
    expected = _run(session, name, inputs)
    tolerance = choose_tolerance(
        list(expected.values()),
        [[_run(other, name, inputs)[key] for key in expected] for other in others],
        integer_graph,
    )
    samples = GoldenSamples(
        {name: inputs},
        expected,
        absolute=tolerance.absolute,
        relative=tolerance.relative,
        outliers=tolerance.outliers,
    )
    broken = [key for key, array in expected.items() if not np.isfinite(array).all()]
    if broken:
        raise StepError(
            "OUTPUT_NOT_FINITE",
            f"The artifact's output {broken[0]!r} holds NaN or infinity on a golden sample; the graph or its "
            "quantization is broken. Evaluate the variant before building it.",
        )
    return Golden(samples, tolerance, source, tolerance.warnings)


def _run(session: Session, name: str, inputs: Tensor) -> dict[str, Tensor]:
    """Run sample by sample; outputs get the sample as their first axis."""
    runs = [session.run({name: inputs[index : index + 1]}) for index in range(len(inputs))]
    for key, array in runs[0].items():
        if array.ndim == 0 or array.shape[0] != 1:
            raise StepError(
                "GRAPH_OUTPUTS_UNSUPPORTED",
                f"Output {key!r} has shape {list(array.shape)} for one image; its first axis must be 1.",
            )
    return {key: np.concatenate([run[key] for run in runs]) for key in runs[0]}


def read_spec(path: Path) -> InputSpec:
    """Read the InputSpec's JSON.

    Raises:
        StepError: INPUT_SPEC_INVALID.
    """
    from boardwright.model.errors import ModelError

    try:
        return InputSpec.from_json(path.read_bytes())
    except ModelError as error:
        raise StepError(error.reason, str(error)) from error
