"""The step ``compile/quantize``."""

from __future__ import annotations

from boardwright.compiler.domain.passes import CALIBRATION, CALIBRATION_RECORD, RECOVERED_MODEL
from boardwright.compiler.domain.plan import MODEL
from boardwright.compiler.kinds import QUANTIZE
from boardwright.compiler.steps.files import (
    Feeds,
    check_information,
    clear_failures,
    notes_of,
    open_dataset,
    optional_graph,
    read_exclusions,
    read_model,
    read_record,
    told_information,
    write_bytes,
    write_json,
    write_model,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements


@implements(QUANTIZE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Quantize the input ``model.onnx`` with the dataset ``calibration``.

    Takes what earlier passes found: ``calibration-record.json`` of ``observe`` (then nothing is observed
    again), ``protection.json`` of ``protect``, ``recovered.onnx`` of ``recover``.

    Outputs: ``model.onnx``, ``calibration-record.json``, ``quantization.json`` (what was left out and why).
    """
    from boardwright.compiler.engine.quantize import quantize
    from boardwright.compiler.engine.scheme import scheme_for, with_granularity

    parameters = request.parameters
    with clear_failures():
        model, input_spec, _ = read_model(request)
        feeds = Feeds(open_dataset(request, CALIBRATION), model, input_spec, parameters["samples"])
        record = read_record(request)
        done = quantize(
            model,
            feeds,
            with_granularity(scheme_for(parameters["profile"]), parameters["granularity"]),
            record=record,
            exclusions=read_exclusions(request),
            recovered=optional_graph(request, RECOVERED_MODEL),
            method=record.method if record else "min-max",
            exclude=parameters["exclude"],
            protect_automatically=parameters["protect"],
            correct_biases=parameters["correct_bias"],
            on_sample=lambda count: progress(count, len(feeds), "calibrating"),
        )
        finding = check_information(request, progress, done.model, model)
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
        CALIBRATION_RECORD: write_bytes(request, CALIBRATION_RECORD, done.record.to_bytes()),
        "quantization.json": write_json(
            request, "quantization.json", {**done.describe(), **told_information(finding)}
        ),
    }
    return StepResult(outputs, values, notes_of(*done.notes, finding=finding))
