"""The step ``compile/quantize-weights``."""

from __future__ import annotations

from boardwright.compiler.kinds import QUANTIZE_WEIGHTS
from boardwright.compiler.steps.files import (
    MODEL,
    clear_failures,
    load_graph,
    open_dataset,
    optional_finding,
    read_model,
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
    from boardwright.model import preprocess

    parameters = request.parameters
    with clear_failures():
        model = load_graph(request, MODEL)
        feeds = []
        if "calibration" in request.inputs:
            _, input_spec, _ = read_model(request)
            dataset = open_dataset(request, "calibration")
            total = min(len(dataset), parameters["samples"])
            feeds = [
                {input_spec.name: preprocess(sample.image, input_spec)[0]}
                for sample in dataset.samples(total)
            ]
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
        progress(0, 0, "checking that the outputs carry information")
        finding = optional_finding(request, done.model, model)
    information = finding.describe() if finding is not None else None
    described = {**done.describe(), "information": information}
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
        "quantization.json": write_json(request, "quantization.json", described),
    }
    warnings = (finding.lost,) if finding is not None and finding.lost else ()
    return StepResult(outputs, values, warnings)
