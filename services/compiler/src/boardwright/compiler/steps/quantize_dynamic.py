"""The step ``compile/quantize-dynamic``."""

from __future__ import annotations

from boardwright.compiler.domain.plan import MODEL
from boardwright.compiler.kinds import QUANTIZE_DYNAMIC
from boardwright.compiler.steps.files import (
    check_information,
    clear_failures,
    load_graph,
    notes_of,
    told_information,
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
        progress(0, 0, "quantizing")
        model = load_graph(request, MODEL)
        done = quantize_dynamic(
            model,
            scheme_for(parameters["profile"]),
            convolutions=parameters["convolutions"],
            exclude=parameters["exclude"],
        )
        finding = check_information(request, progress, done.model, model)
    outputs = {
        MODEL: write_model(request, done.model),
        "quantization.json": write_json(
            request, "quantization.json", {**done.describe(), **told_information(finding)}
        ),
    }
    values = {
        "scheme": "dynamic",
        "layers": done.layers,
        "kernels": done.kernels,
        "size_bytes": done.model.ByteSize(),
        "information_checked": finding is not None,
    }
    return StepResult(outputs, values, notes_of(*done.notes, finding=finding))
