"""The step ``compile/train-quantized``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION_RECORD, PROTECTION, RECOVERED_MODEL
from boardwright.compiler.kinds import TRAIN_QUANTIZED
from boardwright.compiler.steps.files import (
    MODEL,
    ONNX_TYPE,
    check_information,
    clear_failures,
    load_graph,
    open_dataset,
    read_model,
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

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.observe import CalibrationRecord
    from boardwright.compiler.engine.protect import Exclusion
    from boardwright.model import InputSpec
    from boardwright.samples import DatasetReader

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
        dataset = open_dataset(request, "calibration")
        total = min(len(dataset), parameters["samples"] or len(dataset))
        training = prepare_training(request, model, input_spec, output_spec)
        done = train_quantized(
            model,
            training.batches,
            scheme_for(parameters["profile"]),
            training.make_objective,
            training.options,
            feeds=_feeds(model, dataset, input_spec, total),
            record=_record(request),
            exclusions=_exclusions(request),
            exclude=parameters["exclude"],
            protect_automatically=parameters["protect"],
            ranges=parameters["ranges"],
            scale_rate=parameters["scale_rate"],
            recovered=load_graph(request, RECOVERED_MODEL) if RECOVERED_MODEL in request.inputs else None,
            held_out=training.held_out,
            memory_bytes=memory_of(TRAIN_QUANTIZED),
            state_file=state_file(request),
            on_sample=lambda count: progress(count, total, "calibrating"),
            on_step=tell(progress),
        )
        progress(0, 0, "checking that the outputs carry information")
        small = done.quantized.model
        finding = check_information(small, model, dataset, input_spec, output_spec)
        if parameters["fail_if_information_lost"]:
            finding.require()
    described = {**done.describe(), **training.describe(), "information": finding.describe()}
    values = {
        "scheme": done.quantized.scheme.label,
        "profile": parameters["profile"] if isinstance(parameters["profile"], str) else "",
        "calibration_samples": done.quantized.record.samples,
        **training.describe(),
        **training_values(described),
        "kernels": done.quantized.kernels,
        "exclusions": [found.reason for found in done.quantized.exclusions],
        "excluded_nodes": sum(len(found.nodes) for found in done.quantized.exclusions),
        "size_bytes": small.ByteSize(),
    }
    outputs = {
        MODEL: write_model(request, small),
        TRAINED_MODEL: write_bytes(
            request, TRAINED_MODEL, done.trained.SerializeToString(deterministic=True), ONNX_TYPE
        ),
        CALIBRATION_RECORD: write_bytes(request, CALIBRATION_RECORD, done.quantized.record.to_bytes()),
        "quantization.json": write_json(request, "quantization.json", described),
    }
    told = (*training.notes, *done.quantized.notes, done.record.interruption, finding.lost)
    notes = tuple(note for note in told if note)
    return StepResult(outputs, values, notes)


def _feeds(
    model: onnx.ModelProto, dataset: DatasetReader, spec: InputSpec, total: int
) -> Iterator[dict[str, Any]]:
    import numpy as np

    from boardwright.compiler.engine.graph.inspect import graph_inputs
    from boardwright.model import preprocess

    batch = int(graph_inputs(model)[spec.name][0][0] or 1)
    for sample in dataset.samples(total):
        yield {spec.name: np.repeat(preprocess(sample.image, spec)[0], batch, axis=0)}


def _record(request: StepRequest) -> CalibrationRecord | None:
    from boardwright.compiler.engine.observe import CalibrationRecord

    given = request.inputs.get(CALIBRATION_RECORD)
    return CalibrationRecord.from_bytes(given.path.read_bytes()) if given is not None else None


def _exclusions(request: StepRequest) -> tuple[Exclusion, ...] | None:
    from boardwright.compiler.engine.protect.protection import read_exclusions

    given = request.inputs.get(PROTECTION)
    return read_exclusions(json.loads(given.path.read_bytes())) if given is not None else None
