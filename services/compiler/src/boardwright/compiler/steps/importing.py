"""The step ``compile/import``: a thin adapter from files and JSON to the engine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from boardwright.compiler.kinds import IMPORT
from boardwright.compiler.steps.files import (
    INPUT_SPEC,
    MODEL,
    OUTPUT_SPEC,
    clear_failures,
    link,
    write_json,
    write_model,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

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
    from boardwright.compiler.engine.importing import Declared, import_checkpoint
    from boardwright.model import InputSpec, ModelFormat, OutputSpec

    parameters = request.parameters
    with clear_failures(), tempfile.TemporaryDirectory() as folder:
        progress(0, 2, "reading the checkpoint")
        declared = Declared(
            format=ModelFormat(parameters["format"]) if parameters["format"] else None,
            task=parameters["task"],
            input_spec=InputSpec.from_json(parameters["input_spec"]) if parameters["input_spec"] else None,
            output_spec=OutputSpec.from_json(parameters["output_spec"])
            if parameters["output_spec"]
            else None,
            module=link(request.input("module"), Path(folder) / "module.py")
            if "module" in request.inputs
            else None,
            builder=parameters["builder"],
            arguments=parameters["builder_arguments"],
        )
        suffix = _SUFFIXES.get(parameters["format"] or "", "")
        checkpoint = link(request.input("checkpoint"), Path(folder) / f"checkpoint{suffix}")
        imported = import_checkpoint(checkpoint, declared, opset=parameters["opset"])
        progress(1, 2, "writing the graph")
        outputs = {
            MODEL: write_model(request, imported.model),
            INPUT_SPEC: write_json(request, INPUT_SPEC, imported.input_spec.to_json()),
            OUTPUT_SPEC: write_json(request, OUTPUT_SPEC, imported.output_spec.to_json()),
        }
    progress(2, 2, "imported")
    return StepResult(outputs, imported.describe(), imported.notes)
