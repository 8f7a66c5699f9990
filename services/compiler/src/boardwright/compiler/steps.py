"""The compiler's steps: thin adapters from files and JSON to the engine, run in the step process only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.kinds import EVALUATE, IMPORT, QUANTIZE
from boardwright.content import canonical_json
from boardwright.jobs.step_api import (
    InputFile,
    OutputFile,
    Progress,
    StepError,
    StepRequest,
    StepResult,
    implements,
)

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.evaluate import Sample
    from boardwright.model import InputSpec, OutputSpec
    from boardwright.samples import DatasetReader

ONNX_TYPE = "application/vnd.boardwright.model.onnx"
JSON_TYPE = "application/json"

MODEL, INPUT_SPEC, OUTPUT_SPEC = "model.onnx", "input-spec.json", "output-spec.json"
BASELINE_MODEL = "baseline.onnx"

_SUFFIXES = {
    "onnx": ".onnx",
    "torch-state-dict": ".pt",
    "ultralytics": ".pt",
    "torchscript": ".pt",
    "safetensors": ".safetensors",
}
_CHECKED_SAMPLES = 32
_TOLD_FEATURES = frozenset({"avx2", "avx512f", "vnni", "asimddp", "i8mm"})


@implements(IMPORT)
def import_step(request: StepRequest, progress: Progress) -> StepResult:
    """Make ONNX and specs of the input ``checkpoint`` (and ``module``, the user's Python file).

    Outputs: ``model.onnx``, ``input-spec.json``, ``output-spec.json``.
    """
    from boardwright.compiler.engine.importing import Declared, import_checkpoint
    from boardwright.model import InputSpec, ModelFormat, OutputSpec

    parameters = request.parameters
    with _clear_failures(), tempfile.TemporaryDirectory() as folder:
        progress(0, 2, "reading the checkpoint")
        declared = Declared(
            format=ModelFormat(parameters["format"]) if parameters["format"] else None,
            task=parameters["task"],
            input_spec=InputSpec.from_json(parameters["input_spec"]) if parameters["input_spec"] else None,
            output_spec=OutputSpec.from_json(parameters["output_spec"])
            if parameters["output_spec"]
            else None,
            module=_link(request.input("module"), Path(folder) / "module.py")
            if "module" in request.inputs
            else None,
            builder=parameters["builder"],
            arguments=parameters["builder_arguments"],
        )
        suffix = _SUFFIXES.get(parameters["format"] or "", "")
        checkpoint = _link(request.input("checkpoint"), Path(folder) / f"checkpoint{suffix}")
        imported = import_checkpoint(checkpoint, declared, opset=parameters["opset"])
        progress(1, 2, "writing the graph")
        outputs = {
            MODEL: _write_model(request, imported.model),
            INPUT_SPEC: _write_json(request, INPUT_SPEC, imported.input_spec.to_json()),
            OUTPUT_SPEC: _write_json(request, OUTPUT_SPEC, imported.output_spec.to_json()),
        }
    progress(2, 2, "imported")
    return StepResult(outputs, imported.describe(), imported.notes)


@implements(QUANTIZE)
def quantize_step(request: StepRequest, progress: Progress) -> StepResult:
    """Quantize the input ``model.onnx`` with the dataset ``calibration``.

    Outputs: ``model.onnx``, ``calibration-record.json``, ``quantization.json`` (what was left out and why).
    """
    import numpy as np

    from boardwright.compiler.engine.graph.inspect import graph_inputs
    from boardwright.compiler.engine.quantize import quantize
    from boardwright.compiler.engine.scheme import scheme_for
    from boardwright.model import preprocess

    parameters = request.parameters
    with _clear_failures():
        model, input_spec, output_spec = _read_model(request)
        dataset = _open_dataset(request, "calibration")
        total = min(len(dataset), parameters["samples"] or len(dataset))
        batch = int(graph_inputs(model)[input_spec.name][0][0] or 1)
        feeds = (
            {input_spec.name: np.repeat(preprocess(sample.image, input_spec)[0], batch, axis=0)}
            for sample in dataset.samples(total)
        )
        done = quantize(
            model,
            feeds,
            scheme_for(parameters["profile"]),
            exclude=parameters["exclude"],
            protect_automatically=parameters["protect"],
            correct_biases=parameters["correct_bias"],
            on_sample=lambda count: progress(count, total, "calibrating"),
        )
        progress(0, 0, "checking that the outputs carry information")
        finding = _check_information(done.model, model, dataset, input_spec, output_spec)
        if parameters["fail_if_information_lost"]:
            finding.require()
    described = {**done.describe(), "information": finding.describe()}
    values = {
        "scheme": done.scheme.label,
        "profile": parameters["profile"] if isinstance(parameters["profile"], str) else "",
        "calibration_samples": done.record.samples,
        "kernels": done.kernels,
        "corrected_biases": done.corrected_biases,
        "exclusions": [found.reason for found in done.exclusions],
        "excluded_nodes": sum(len(found.nodes) for found in done.exclusions),
        "size_bytes": done.model.ByteSize(),
    }
    outputs = {
        MODEL: _write_model(request, done.model),
        "calibration-record.json": _write_bytes(request, "calibration-record.json", done.record.to_bytes()),
        "quantization.json": _write_json(request, "quantization.json", described),
    }
    warnings = done.notes + ((finding.lost,) if finding.lost else ())
    return StepResult(outputs, values, warnings)


@implements(EVALUATE)
def evaluate_step(request: StepRequest, progress: Progress) -> StepResult:
    """Judge the input ``model.onnx`` on the dataset ``evaluation``, beside ``baseline.onnx`` if it is given.

    Output: ``evaluation.json``. Values: ``accuracy`` and ``parity``, fractions of 1.
    """
    from boardwright.compiler.engine.evaluate import evaluate, label_note

    parameters = request.parameters
    with _clear_failures():
        model, input_spec, output_spec = _read_model(request)
        dataset = _open_dataset(request, "evaluation")
        total = min(len(dataset), parameters["samples"] or len(dataset))
        found = evaluate(
            model,
            _labelled(dataset, total),
            input_spec,
            output_spec,
            baseline=_load(request, BASELINE_MODEL) if BASELINE_MODEL in request.inputs else None,
            on_sample=lambda count: progress(count, total, "evaluating"),
        )
        if parameters["fail_if_information_lost"]:
            found.information.require()
    values = {
        "samples": found.samples,
        "labelled": found.labelled,
        "accuracy": found.accuracy,
        "parity": found.parity,
        "information": found.information.describe(),
        "host": _host(),
    }
    outputs = {"evaluation.json": _write_json(request, "evaluation.json", found.describe())}
    notes = (label_note(found), found.information.lost)
    return StepResult(outputs, values, tuple(note for note in notes if note))


@contextmanager
def _clear_failures() -> Iterator[None]:
    """Turn the engine's and the models' own errors into the step's; they are deterministic."""
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.model import ModelError
    from boardwright.samples import SampleError

    try:
        yield
    except (EngineError, ModelError, SampleError) as error:
        raise StepError(error.reason, error.message) from error


def _host() -> dict[str, Any]:
    """Return the machine that runs this step, in a HardwarePin's words."""
    from boardwright.model import detect_host

    host = detect_host()
    return {
        "architecture": host.architecture,
        "cpu_features": sorted(host.cpu_features & _TOLD_FEATURES),
        "runtime": "onnxruntime",
        "runtime_version": host.runtimes.get("onnxruntime", ""),
    }


def _link(given: InputFile, path: Path) -> Path:
    """Make the input appear under a file name that says its format; libraries look at suffixes."""
    source = given.path.resolve()
    try:
        path.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, path)
    return path


def _read_model(request: StepRequest) -> tuple[onnx.ModelProto, InputSpec, OutputSpec]:
    from boardwright.model import InputSpec, OutputSpec

    return (
        _load(request, MODEL),
        InputSpec.from_json(request.input(INPUT_SPEC).path.read_bytes()),
        OutputSpec.from_json(request.input(OUTPUT_SPEC).path.read_bytes()),
    )


def _load(request: StepRequest, name: str) -> onnx.ModelProto:
    from boardwright.compiler.engine.checkpoint.onnx_file import load_onnx

    return load_onnx(request.input(name).path).model


def _open_dataset(request: StepRequest, role: str) -> DatasetReader:
    """Open a sealed dataset: its manifest is the input ``role``, its packs are ``role.pack-N``."""
    from boardwright.samples import DatasetManifest, DatasetReader

    packs = {
        given.digest: given.path for name, given in request.inputs.items() if name.startswith(f"{role}.pack-")
    }
    manifest = DatasetManifest.from_bytes(request.input(role).path.read_bytes())
    return DatasetReader(manifest, packs)


def _labelled(dataset: DatasetReader, total: int) -> Iterator[Sample]:
    import numpy as np

    from boardwright.compiler.engine.evaluate import Sample

    for sample in dataset.samples(total):
        label = sample.label
        if label is None:
            yield Sample(sample.name, sample.image)
        elif isinstance(label, int):
            yield Sample(sample.name, sample.image, class_index=label)
        else:
            width, height = sample.image.size
            kept = [box for box in label if not box.crowd]
            corners = [
                (
                    (box.center_x - box.width / 2) * width,
                    (box.center_y - box.height / 2) * height,
                    (box.center_x + box.width / 2) * width,
                    (box.center_y + box.height / 2) * height,
                )
                for box in kept
            ]
            yield Sample(
                sample.name,
                sample.image,
                boxes=np.array(corners, np.float64).reshape(-1, 4),
                classes=np.array([box.class_id for box in kept], np.intp),
            )


def _check_information(
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


def _write_model(request: StepRequest, model: onnx.ModelProto) -> OutputFile:
    return _write_bytes(request, MODEL, model.SerializeToString(deterministic=True), ONNX_TYPE)


def _write_json(request: StepRequest, name: str, values: Mapping[str, Any]) -> OutputFile:
    return _write_bytes(request, name, canonical_json(dict(values)))


def _write_bytes(request: StepRequest, name: str, data: bytes, media_type: str = JSON_TYPE) -> OutputFile:
    path = request.output_path(name)
    path.write_bytes(data)
    return OutputFile(path, media_type)
