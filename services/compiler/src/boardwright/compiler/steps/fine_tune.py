"""The step ``compile/fine-tune``."""

from __future__ import annotations

from boardwright.compiler.kinds import FINE_TUNE
from boardwright.compiler.steps.files import (
    BASELINE_MODEL,
    MODEL,
    check_information,
    clear_failures,
    load_graph,
    open_dataset,
    read_model,
    write_bytes,
    write_json,
    write_model,
)
from boardwright.compiler.steps.training import memory_of, prepare_training, tell, training_values
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

CHECKPOINT = "checkpoint"
_TYPE = "application/octet-stream"


@implements(FINE_TUNE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Train the input ``model.onnx`` on the dataset ``training``, without one on ``calibration``.

    Self-distilled, it learns the answers of ``baseline.onnx``, or its own where it is the baseline. Outputs:
    ``model.onnx``, ``checkpoint`` (the same graph: later passes go on from it) and ``fine-tuning.json``.
    """
    from boardwright.compiler.engine.fine_tune import fine_tune

    with clear_failures():
        model, input_spec, output_spec = read_model(request)
        baseline = load_graph(request, BASELINE_MODEL) if BASELINE_MODEL in request.inputs else model
        training = prepare_training(request, model, input_spec, output_spec)
        done = fine_tune(
            model,
            training.batches,
            training.make_objective,
            training.options,
            teacher=baseline,
            memory_bytes=memory_of(FINE_TUNE),
            on_step=tell(progress),
        )
        progress(0, 0, "checking that the outputs carry information")
        dataset = open_dataset(request, training.role)
        finding = check_information(done.model, baseline, dataset, input_spec, output_spec)
        if request.parameters["fail_if_information_lost"]:
            finding.require()
    described = {**done.describe(), **training.describe(), "information": finding.describe()}
    graph = done.model.SerializeToString(deterministic=True)
    outputs = {
        MODEL: write_model(request, done.model),
        CHECKPOINT: write_bytes(request, CHECKPOINT, graph, _TYPE),
        "fine-tuning.json": write_json(request, "fine-tuning.json", described),
    }
    notes = tuple(note for note in (*done.notes, finding.lost) if note)
    return StepResult(outputs, {**training.describe(), **training_values(described)}, notes)
