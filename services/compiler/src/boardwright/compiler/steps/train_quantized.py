"""The step ``compile/train-quantized``."""

from __future__ import annotations

from boardwright.compiler.domain.passes import CALIBRATION, CALIBRATION_RECORD, RECOVERED_MODEL
from boardwright.compiler.domain.plan import MODEL
from boardwright.compiler.kinds import TRAIN_QUANTIZED
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
from boardwright.compiler.steps.training import (
    memory_of,
    prepare_training,
    state_file,
    tell,
    training_values,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

TRAINED_MODEL = "trained.onnx"


@implements(TRAIN_QUANTIZED)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Train the input ``model.onnx`` for the profile's integers, and quantize it.

    Ranges come from ``calibration-record.json`` where an earlier pass made one, else from the dataset
    ``calibration``; training takes the dataset ``training``, without one ``calibration``. Outputs:
    ``model.onnx``, ``trained.onnx`` (the float weights), ``calibration-record.json`` (the learnt ranges, for
    other toolchains) and ``quantization.json``. Killed, it goes on after the last epoch that was kept.
    """
    from boardwright.compiler.engine.scheme import scheme_for
    from boardwright.compiler.engine.train_quantized import train_quantized

    parameters = request.parameters
    with clear_failures():
        model, input_spec, output_spec = read_model(request)
        feeds = Feeds(open_dataset(request, CALIBRATION), model, input_spec, parameters["samples"])
        training = prepare_training(request, model, input_spec, output_spec)
        done = train_quantized(
            model,
            training.batches,
            scheme_for(parameters["profile"]),
            training.make_objective,
            training.options,
            feeds=feeds,
            record=read_record(request),
            exclusions=read_exclusions(request),
            exclude=parameters["exclude"],
            protect_automatically=parameters["protect"],
            ranges=parameters["ranges"],
            scale_rate=parameters["scale_rate"],
            recovered=optional_graph(request, RECOVERED_MODEL),
            held_out=training.held_out,
            memory_bytes=memory_of(TRAIN_QUANTIZED),
            state_file=state_file(request),
            on_sample=lambda count: progress(count, len(feeds), "calibrating"),
            on_step=tell(progress),
        )
        finding = check_information(request, progress, done.quantized.model, model)
    described = {**done.describe(), **training.describe(), **told_information(finding)}
    values = {
        "scheme": done.quantized.scheme.label,
        "profile": parameters["profile"] if isinstance(parameters["profile"], str) else "",
        "calibration_samples": done.quantized.record.samples,
        **training.describe(),
        **training_values(described),
        "kernels": done.quantized.kernels,
        "exclusions": [found.reason for found in done.quantized.exclusions],
        "excluded_nodes": sum(len(found.nodes) for found in done.quantized.exclusions),
        "size_bytes": done.quantized.model.ByteSize(),
    }
    outputs = {
        MODEL: write_model(request, done.quantized.model),
        TRAINED_MODEL: write_model(request, done.trained, TRAINED_MODEL),
        CALIBRATION_RECORD: write_bytes(request, CALIBRATION_RECORD, done.quantized.record.to_bytes()),
        "quantization.json": write_json(request, "quantization.json", described),
    }
    notes = notes_of(*training.notes, *done.quantized.notes, done.record.interruption, finding=finding)
    return StepResult(outputs, values, notes)
