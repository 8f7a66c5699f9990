"""What the steps share: inputs as files read into the engine's types, results written as outputs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.content import canonical_json
from boardwright.jobs.step_api import InputFile, OutputFile, StepError, StepRequest

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.evaluate import Sample
    from boardwright.compiler.engine.observe import CalibrationRecord
    from boardwright.model import InputSpec, OutputSpec
    from boardwright.samples import DatasetReader

ONNX_TYPE = "application/vnd.boardwright.model.onnx"
JSON_TYPE = "application/json"

MODEL, INPUT_SPEC, OUTPUT_SPEC = "model.onnx", "input-spec.json", "output-spec.json"
BASELINE_MODEL = "baseline.onnx"
CALIBRATION_RECORD = "calibration-record.json"

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
    from boardwright.model import InputSpec, OutputSpec

    return (
        load_graph(request, MODEL),
        InputSpec.from_json(request.input(INPUT_SPEC).path.read_bytes()),
        OutputSpec.from_json(request.input(OUTPUT_SPEC).path.read_bytes()),
    )


def load_graph(request: StepRequest, name: str) -> onnx.ModelProto:
    from boardwright.compiler.engine.checkpoint.onnx_file import load_onnx

    return load_onnx(request.input(name).path).model


def read_record(request: StepRequest) -> CalibrationRecord | None:
    """Return what an earlier pass observed of this graph, or None."""
    from boardwright.compiler.engine.observe import CalibrationRecord

    if CALIBRATION_RECORD not in request.inputs:
        return None
    return CalibrationRecord.from_bytes(request.input(CALIBRATION_RECORD).path.read_bytes())


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
    import numpy as np

    from boardwright.compiler.engine.evaluate import Sample

    for sample in dataset.samples(chosen) if isinstance(chosen, int) else dataset.at(chosen):
        label = sample.label
        if label is None:
            yield Sample(sample.name, sample.image)
        elif isinstance(label, int):
            yield Sample(sample.name, sample.image, class_index=label)
        else:
            width, height = sample.image.size
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
            yield Sample(
                sample.name,
                sample.image,
                boxes=corners[~crowd],
                classes=classes[~crowd],
                crowd_boxes=corners[crowd],
                crowd_classes=classes[crowd],
            )


def check_information(
    model: onnx.ModelProto,
    baseline: onnx.ModelProto,
    dataset: DatasetReader,
    input_spec: InputSpec,
    output_spec: OutputSpec,
) -> Any:
    """Compare answers of both models on a few calibration samples; their labels are not looked at."""
    from boardwright.compiler.engine.evaluate import Sample, evaluate

    samples = (Sample(sample.name, sample.image) for sample in dataset.samples(_CHECKED_SAMPLES))
    return evaluate(model, samples, input_spec, output_spec, baseline=baseline).information


def optional_finding(request: StepRequest, model: onnx.ModelProto, baseline: onnx.ModelProto) -> Any:
    """Compare answers of both models as ``check_information`` does, None without a calibration dataset.

    Raises:
        InformationLost: the parameter ``fail_if_information_lost`` asks for it.
    """
    if "calibration" not in request.inputs:
        return None
    _, input_spec, output_spec = read_model(request)
    finding = check_information(
        model, baseline, open_dataset(request, "calibration"), input_spec, output_spec
    )
    if request.parameters["fail_if_information_lost"]:
        finding.require()
    return finding


def one_feed(request: StepRequest, model: onnx.ModelProto, input_spec: InputSpec) -> dict[str, Any]:
    """Return one preprocessed input: the first calibration sample, or seeded noise without a dataset."""
    import numpy as np

    from boardwright.compiler.engine.graph.inspect import graph_inputs
    from boardwright.model import preprocess

    if "calibration" in request.inputs:
        image = next(iter(open_dataset(request, "calibration").samples(1))).image
    else:
        shape = (input_spec.height, input_spec.width, 3)
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batch = graph_inputs(model)[input_spec.name][0][0]
    tensor = preprocess(image, input_spec)[0]
    return {input_spec.name: np.repeat(tensor, batch if isinstance(batch, int) else 1, axis=0)}


def feeds_of(
    dataset: DatasetReader, model: onnx.ModelProto, input_spec: InputSpec, count: int
) -> list[dict[str, Any]]:
    """Return up to ``count`` samples as a session takes them, repeated to the graph's batch."""
    import numpy as np

    from boardwright.compiler.engine.graph.inspect import graph_inputs
    from boardwright.model import preprocess

    batch = graph_inputs(model)[input_spec.name][0][0]
    times = batch if isinstance(batch, int) else 1
    return [
        {input_spec.name: np.repeat(preprocess(sample.image, input_spec)[0], times, axis=0)}
        for sample in dataset.samples(min(len(dataset), count))
    ]


def write_model(request: StepRequest, model: onnx.ModelProto) -> OutputFile:
    return write_bytes(request, MODEL, model.SerializeToString(deterministic=True), ONNX_TYPE)


def write_json(request: StepRequest, name: str, values: Mapping[str, Any]) -> OutputFile:
    return write_bytes(request, name, canonical_json(dict(values)))


def write_bytes(request: StepRequest, name: str, data: bytes, media_type: str = JSON_TYPE) -> OutputFile:
    path = request.output_path(name)
    path.write_bytes(data)
    return OutputFile(path, media_type)
