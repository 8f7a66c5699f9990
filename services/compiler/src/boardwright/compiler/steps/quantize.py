"""The step ``compile/quantize``."""

from __future__ import annotations

from boardwright.compiler.kinds import QUANTIZE
from boardwright.compiler.steps.files import (
    MODEL,
    check_information,
    clear_failures,
    load_graph,
    open_dataset,
    read_model,
    read_record,
    write_bytes,
    write_json,
    write_model,
)
from boardwright.compiler.steps.recover import RECOVERED_MODEL, read_exclusions
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements


@implements(QUANTIZE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Quantize the input ``model.onnx`` with the dataset ``calibration``.

    Takes what earlier passes found: ``calibration-record.json`` of ``observe`` (then nothing is observed
    again), ``protection.json`` of ``protect``, ``recovered.onnx`` of ``recover``.

    Outputs: ``model.onnx``, ``calibration-record.json``, ``quantization.json`` (what was left out and why).
    """
    import numpy as np

    from boardwright.compiler.engine.graph.inspect import graph_inputs
    from boardwright.compiler.engine.quantize import quantize
    from boardwright.compiler.engine.scheme import scheme_for, with_granularity
    from boardwright.model import preprocess

    parameters = request.parameters
    with clear_failures():
        model, input_spec, output_spec = read_model(request)
        dataset = open_dataset(request, "calibration")
        total = min(len(dataset), parameters["samples"] or len(dataset))
        batch = int(graph_inputs(model)[input_spec.name][0][0] or 1)
        feeds = (
            {input_spec.name: np.repeat(preprocess(sample.image, input_spec)[0], batch, axis=0)}
            for sample in dataset.samples(total)
        )
        record = read_record(request)
        done = quantize(
            model,
            feeds,
            with_granularity(scheme_for(parameters["profile"]), parameters["granularity"]),
            record=record,
            exclusions=read_exclusions(request, parameters["protect"]),
            recovered=load_graph(request, RECOVERED_MODEL) if RECOVERED_MODEL in request.inputs else None,
            method=record.method if record else "min-max",
            exclude=parameters["exclude"],
            protect_automatically=parameters["protect"],
            correct_biases=parameters["correct_bias"],
            on_sample=lambda count: progress(count, total, "calibrating"),
        )
        progress(0, 0, "checking that the outputs carry information")
        finding = check_information(done.model, model, dataset, input_spec, output_spec)
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
        MODEL: write_model(request, done.model),
        "calibration-record.json": write_bytes(request, "calibration-record.json", done.record.to_bytes()),
        "quantization.json": write_json(request, "quantization.json", described),
    }
    warnings = done.notes + ((finding.lost,) if finding.lost else ())
    return StepResult(outputs, values, warnings)
