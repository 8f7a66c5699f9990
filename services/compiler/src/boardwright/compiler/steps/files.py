"""What the steps share: inputs as files read into the engine's types, results written as outputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION, CALIBRATION_RECORD, CHECKPOINT, PROTECTION
from boardwright.compiler.domain.plan import BASELINE_MODEL, INPUT_SPEC, MODEL, OUTPUT_SPEC
from boardwright.content import canonical_json
from boardwright.jobs.step_api import InputFile, OutputFile, Progress, StepError, StepRequest

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from PIL import Image

    from boardwright.compiler.engine.evaluate import Sample
    from boardwright.compiler.engine.observe import CalibrationRecord
    from boardwright.compiler.engine.protect import Exclusion
    from boardwright.compiler.engine.quality import Verdict
    from boardwright.model import InputSpec, OutputSpec
    from boardwright.samples import DatasetReader, Label

    Feed = dict[str, np.ndarray[Any, Any]]

ONNX_TYPE = "application/vnd.boardwright.model.onnx"
JSON_TYPE = "application/json"
CHECKPOINT_TYPE = "application/octet-stream"

_CHECKED_SAMPLES = 32
_TOLD_FEATURES = frozenset({"avx2", "avx512f", "vnni", "asimddp", "i8mm"})


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn the engine's and the models' own errors into the step's; they are deterministic."""
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.model import ModelError
    from boardwright.samples import SampleError

    try:
        yield
    except (EngineError, ModelError, SampleError) as error:
        raise StepError(error.reason, error.message) from error


def host_values() -> dict[str, Any]:
    """Return the machine that runs this step, in a HardwarePin's words."""
    from boardwright.model import detect_host

    host = detect_host()
    return {
        "architecture": host.architecture,
        "cpu_features": sorted(host.cpu_features & _TOLD_FEATURES),
        "runtime": "onnxruntime",
        "runtime_version": host.runtimes.get("onnxruntime", ""),
    }


def link(given: InputFile, path: Path) -> Path:
    """Make the input appear under a file name that says its format; libraries look at suffixes."""
    source = given.path.resolve()
    try:
        path.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, path)
    return path


def read_model(request: StepRequest) -> tuple[onnx.ModelProto, InputSpec, OutputSpec]:
    """Return the graph that the pass works on, and its specs."""
    return (load_graph(request, MODEL), *read_specs(request))


def read_specs(request: StepRequest) -> tuple[InputSpec, OutputSpec]:
    """Return the specs that import fixed."""
    from boardwright.model import InputSpec, OutputSpec

    return (
        InputSpec.from_json(request.input(INPUT_SPEC).path.read_bytes()),
        OutputSpec.from_json(request.input(OUTPUT_SPEC).path.read_bytes()),
    )


def load_graph(request: StepRequest, name: str) -> onnx.ModelProto:
    """Return the graph that is the input ``name``."""
    from boardwright.compiler.engine.checkpoint.onnx_file import load_onnx

    return load_onnx(request.input(name).path).model


def optional_graph(request: StepRequest, name: str) -> onnx.ModelProto | None:
    """Return the graph that is the input ``name``, None where the step has no such input."""
    return load_graph(request, name) if name in request.inputs else None


def baseline_of(request: StepRequest, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the baseline's graph: ``model`` itself where the pass works on the baseline."""
    found = optional_graph(request, BASELINE_MODEL)
    return model if found is None else found


def read_record(request: StepRequest) -> CalibrationRecord | None:
    """Return what an earlier pass observed of this graph, or None."""
    from boardwright.compiler.engine.observe import CalibrationRecord

    given = request.inputs.get(CALIBRATION_RECORD)
    return CalibrationRecord.from_bytes(given.path.read_bytes()) if given is not None else None


def read_exclusions(request: StepRequest) -> tuple[Exclusion, ...] | None:
    """Return what an earlier pass protect found; None, to find it anew, without one.

    Nothing stays in floating point by itself where the parameter ``protect`` is off.
    """
    from boardwright.compiler.engine.protect import read_exclusions

    if not request.parameters["protect"]:
        return ()
    given = request.inputs.get(PROTECTION)
    return read_exclusions(json.loads(given.path.read_bytes())) if given is not None else None


def open_dataset(request: StepRequest, role: str) -> DatasetReader:
    """Open a sealed dataset: its manifest is the input ``role``, its packs are ``role.pack-N``."""
    from boardwright.samples import DatasetManifest, DatasetReader

    packs = {
        given.digest: given.path for name, given in request.inputs.items() if name.startswith(f"{role}.pack-")
    }
    manifest = DatasetManifest.from_bytes(request.input(role).path.read_bytes())
    return DatasetReader(manifest, packs)


def labelled(dataset: DatasetReader, chosen: int | Sequence[int]) -> Iterator[Sample]:
    """Yield samples with their labels: so many, spread evenly, or those at these places."""
    for sample in dataset.samples(chosen) if isinstance(chosen, int) else dataset.at(chosen):
        yield labelled_sample(sample.name, sample.image, sample.label)


def labelled_sample(name: str, image: Image.Image, label: Label) -> Sample:
    """Return an image with its label as the engine takes it, boxes in pixels."""
    import numpy as np

    from boardwright.compiler.engine.evaluate import Sample

    if label is None:
        return Sample(name, image)
    if isinstance(label, int):
        return Sample(name, image, class_index=label)
    width, height = image.size
    corners = np.array(
        [
            (
                (box.center_x - box.width / 2) * width,
                (box.center_y - box.height / 2) * height,
                (box.center_x + box.width / 2) * width,
                (box.center_y + box.height / 2) * height,
            )
            for box in label
        ],
        np.float64,
    ).reshape(-1, 4)
    classes = np.array([box.class_id for box in label], np.intp)
    crowd = np.array([box.crowd for box in label], np.bool_)
    return Sample(
        name,
        image,
        boxes=corners[~crowd],
        classes=classes[~crowd],
        crowd_boxes=corners[crowd],
        crowd_classes=classes[crowd],
    )


class Feeds:
    """Samples of a dataset as a session takes them: read anew at each pass over them, one at a time.

    ``count`` are taken, spread evenly, or all; each is repeated to the graph's batch.
    """

    def __init__(
        self, dataset: DatasetReader, model: onnx.ModelProto, input_spec: InputSpec, count: int | None
    ) -> None:
        from boardwright.compiler.engine.feeds import batch_of

        self._dataset = dataset
        self._spec = input_spec
        self._batch = batch_of(model, input_spec)
        self._count = len(dataset) if count is None else min(len(dataset), count)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Feed]:
        from boardwright.compiler.engine.feeds import feed_of

        for sample in self._dataset.samples(self._count):
            yield feed_of(sample.image, self._spec, self._batch, sample=sample.name)


def one_feed(request: StepRequest, model: onnx.ModelProto, input_spec: InputSpec) -> Feed:
    """Return one preprocessed input: the first calibration sample, or seeded noise without a dataset."""
    import numpy as np

    from boardwright.compiler.engine.feeds import batch_of, feed_of

    if CALIBRATION in request.inputs:
        return next(iter(Feeds(open_dataset(request, CALIBRATION), model, input_spec, 1)))
    shape = (input_spec.height, input_spec.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return feed_of(noise, input_spec, batch_of(model, input_spec))


def check_information(
    request: StepRequest,
    progress: Progress,
    made: onnx.ModelProto,
    baseline: onnx.ModelProto,
    role: str = CALIBRATION,
) -> Verdict | None:
    """Compare answers of both models on a few samples of a dataset; their labels are not looked at.

    Returns None where the step has no such dataset.

    Raises:
        InformationLost: the parameter ``fail_if_information_lost`` asks for it.
    """
    from boardwright.compiler.engine.evaluate import Sample, evaluate

    if role not in request.inputs:
        return None
    progress(0, 0, "checking that the outputs carry information")
    found = open_dataset(request, role).samples(_CHECKED_SAMPLES)
    samples = (Sample(sample.name, sample.image) for sample in found)
    verdict = evaluate(made, samples, *read_specs(request), baseline=baseline).information
    if request.parameters.get("fail_if_information_lost"):
        verdict.require()
    return verdict


def told_information(finding: Verdict | None) -> dict[str, Any]:
    """Return the entry of a pass's record that says whether the outputs carry information."""
    return {"information": finding.describe() if finding is not None else None}


def notes_of(*notes: str, finding: Verdict | None = None) -> tuple[str, ...]:
    """Return a step's warnings: the notes that say something, and the information that is lost."""
    lost = finding.lost if finding is not None else ""
    return tuple(note for note in (*notes, lost) if note)


def write_model(request: StepRequest, model: onnx.ModelProto, name: str = MODEL) -> OutputFile:
    """Write a graph as an output; equal graphs have equal bytes."""
    return write_bytes(request, name, model.SerializeToString(deterministic=True), ONNX_TYPE)


def write_trained(
    request: StepRequest, model: onnx.ModelProto, checkpoint: bytes = b""
) -> dict[str, OutputFile]:
    """Write a graph and the ``checkpoint`` that later passes go on to train, by default the graph itself."""
    data = checkpoint or model.SerializeToString(deterministic=True)
    written = write_bytes(request, CHECKPOINT, data, CHECKPOINT_TYPE)
    return {MODEL: write_model(request, model), CHECKPOINT: written}


def write_json(request: StepRequest, name: str, values: Mapping[str, Any]) -> OutputFile:
    """Write JSON-able values as an output."""
    return write_bytes(request, name, canonical_json(dict(values)))


def write_bytes(request: StepRequest, name: str, data: bytes, media_type: str = JSON_TYPE) -> OutputFile:
    """Write an output."""
    path = request.output_path(name)
    path.write_bytes(data)
    return OutputFile(path, media_type)
