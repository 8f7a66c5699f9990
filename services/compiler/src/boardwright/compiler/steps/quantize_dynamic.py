"""The step ``compile/quantize-dynamic``."""

from __future__ import annotations

from boardwright.compiler.kinds import QUANTIZE_DYNAMIC
from boardwright.compiler.steps.files import (
    MODEL,
    clear_failures,
    load_graph,
    optional_finding,
    write_json,
    write_model,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements


@implements(QUANTIZE_DYNAMIC)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Quantize the weights of the input ``model.onnx``; activations are quantized as they come.

    Outputs: ``model.onnx``, ``quantization.json``.
    """
    from boardwright.compiler.engine.dynamic import quantize_dynamic
    from boardwright.compiler.engine.scheme import scheme_for

    parameters = request.parameters
    with clear_failures():
        progress(0, 2, "quantizing")
        model = load_graph(request, MODEL)
        done = quantize_dynamic(
            model,
            scheme_for(parameters["profile"]),
            convolutions=parameters["convolutions"],
            exclude=parameters["exclude"],
        )
        progress(1, 2, "checking that the outputs carry information")
        finding = optional_finding(request, done.model, model)
    information = finding.describe() if finding is not None else None
    outputs = {
        MODEL: write_model(request, done.model),
        "quantization.json": write_json(
            request, "quantization.json", {**done.describe(), "information": information}
        ),
    }
    values = {
        "scheme": "dynamic",
        "layers": done.layers,
        "kernels": done.kernels,
        "size_bytes": done.model.ByteSize(),
        "information_checked": finding is not None,
    }
    progress(2, 2, "quantized")
    warnings = done.notes + ((finding.lost,) if finding is not None and finding.lost else ())
    return StepResult(outputs, values, warnings)
