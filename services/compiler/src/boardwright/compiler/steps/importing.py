"""The step ``compile/import``: a thin adapter from files and JSON to the engine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.plan import INPUT_SPEC, MODEL, OUTPUT_SPEC
from boardwright.compiler.kinds import IMPORT
from boardwright.compiler.steps.files import clear_failures, link, write_json, write_model
from boardwright.jobs.step_api import InputFile, Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    from boardwright.compiler.engine.importing import Declared

_SUFFIXES = {
    "onnx": ".onnx",
    "torch-state-dict": ".pt",
    "ultralytics": ".pt",
    "torchscript": ".pt",
    "safetensors": ".safetensors",
}


@implements(IMPORT)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Make ONNX and specs of the input ``checkpoint`` (and ``module``, the user's Python file).

    Outputs: ``model.onnx``, ``input-spec.json``, ``output-spec.json``.
    """
    from boardwright.compiler.engine.importing import import_checkpoint

    parameters = request.parameters
    with clear_failures(), tempfile.TemporaryDirectory() as folder:
        progress(0, 2, "reading the checkpoint")
        given, module = request.input("checkpoint"), request.inputs.get("module")
        checkpoint, declared = read_declared(parameters, given, module, Path(folder), "pushed_file")
        with pushed_files_told(checkpoint, declared.module):
            imported = import_checkpoint(checkpoint, declared, opset=parameters["opset"])
        progress(1, 2, "writing the graph")
        outputs = {
            MODEL: write_model(request, imported.model),
            INPUT_SPEC: write_json(request, INPUT_SPEC, imported.input_spec.to_json()),
            OUTPUT_SPEC: write_json(request, OUTPUT_SPEC, imported.output_spec.to_json()),
        }
    progress(2, 2, "imported")
    return StepResult(outputs, imported.describe(), imported.notes)


@contextmanager
def pushed_files_told(checkpoint: Path, module: Path | None) -> Iterator[None]:
    """Say "the checkpoint" where an error names a file by what it is called in here.

    A step knows its inputs by content alone: what they were called when they were pushed is no part of it.
    """
    from boardwright.compiler.engine.errors import EngineError

    words = {} if module is None else {module.name: "the network's module"}  # it may begin as the other does
    words[checkpoint.name] = "the checkpoint"
    try:
        yield
    except EngineError as error:
        message = error.message
        for name, told in words.items():
            message = message.replace(name, told)
        raise type(error)(error.reason, message[:1].upper() + message[1:]) from error


def read_declared(
    parameters: Mapping[str, Any], given: InputFile, module: InputFile | None, folder: Path, name: str
) -> tuple[Path, Declared]:
    """Return a checkpoint under a file name that its format wants, and what import is told of it.

    ``parameters`` are those of the pass import, which may lack any. ``name`` is the file's, without suffix.
    """
    from boardwright.compiler.engine.importing import Declared
    from boardwright.model import InputSpec, ModelFormat, OutputSpec

    told = {**IMPORT.defaults, **parameters}
    declared = Declared(
        format=ModelFormat(told["format"]) if told["format"] else None,
        task=told["task"],
        input_spec=InputSpec.from_json(told["input_spec"]) if told["input_spec"] else None,
        output_spec=OutputSpec.from_json(told["output_spec"]) if told["output_spec"] else None,
        module=link(module, folder / f"{name}_module.py") if module is not None else None,
        builder=told["builder"],
        arguments=told["builder_arguments"],
    )
    suffix = _SUFFIXES.get(told["format"] or "", "")
    return link(given, folder / f"{name}{suffix}"), declared
