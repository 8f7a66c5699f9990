"""The step ``compile/quantize-weights``."""

from __future__ import annotations

from typing import Any

from boardwright.compiler.domain.passes import CALIBRATION
from boardwright.compiler.domain.plan import MODEL
from boardwright.compiler.kinds import QUANTIZE_WEIGHTS
from boardwright.compiler.steps.files import (
    Feeds,
    check_information,
    clear_failures,
    load_graph,
    notes_of,
    open_dataset,
    read_specs,
    told_information,
    write_json,
    write_model,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements


@implements(QUANTIZE_WEIGHTS)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Pack the weights of the input ``model.onnx``, with the dataset ``calibration`` where there is one.

    Outputs: ``model.onnx``, ``quantization.json``.
    """
    from boardwright.compiler.engine.weight_only import WeightOnlyOptions, quantize_weights

    parameters = request.parameters
    with clear_failures():
        model = load_graph(request, MODEL)
        feeds: list[Any] = []
        if CALIBRATION in request.inputs:
            dataset, (input_spec, _) = open_dataset(request, CALIBRATION), read_specs(request)
            feeds = list(Feeds(dataset, model, input_spec, parameters["samples"]))
        done = quantize_weights(
            model,
            WeightOnlyOptions(
                bits=parameters["bits"],
                block_size=parameters["block_size"],
                algorithm=parameters["algorithm"],
                symmetric=parameters["symmetric"],
                integer_compute=parameters["integer_compute"],
                exclude=tuple(parameters["exclude"]),
            ),
            feeds,
            on_sample=lambda count: progress(count, len(feeds), "sampling activations"),
        )
        finding = check_information(request, progress, done.model, model)
    values = {
        "scheme": f"{parameters['bits']}-bit weights",
        "algorithm": parameters["algorithm"],
        "layers": len(done.layers),
        "left_out": len(done.left_out),
        "weight_bytes_before": done.weight_bytes_before,
        "weight_bytes_after": done.weight_bytes_after,
        "output_sqnr_db": done.output_sqnr_db,
        "size_bytes": done.model.ByteSize(),
        "information_checked": finding is not None,
    }
    outputs = {
        MODEL: write_model(request, done.model),
        "quantization.json": write_json(
            request, "quantization.json", {**done.describe(), **told_information(finding)}
        ),
    }
    return StepResult(outputs, values, notes_of(finding=finding))
