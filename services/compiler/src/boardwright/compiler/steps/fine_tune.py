"""The step ``compile/fine-tune``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from boardwright.compiler.kinds import FINE_TUNE
from boardwright.compiler.steps.files import (
    BASELINE_MODEL,
    MODEL,
    check_information,
    clear_failures,
    labelled,
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
from boardwright.compiler.steps.ultralytics import trainable_file
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

CHECKPOINT = "checkpoint"
_TYPE = "application/octet-stream"


@implements(FINE_TUNE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Train the input ``model.onnx`` on the dataset ``training``, without one on ``calibration``.

    Self-distilled, it learns the answers of ``baseline.onnx``, or its own where it is the baseline. Outputs:
    ``model.onnx``, ``checkpoint`` (the same graph: later passes go on from it) and ``fine-tuning.json``.
    A detector learns labels where ``checkpoint`` is an Ultralytics file, by Ultralytics' own trainer. Killed,
    it goes on after the last epoch that was kept; Ultralytics' trainer starts over.
    """
    from boardwright.compiler.engine.fine_tune import fine_tune

    with clear_failures():
        model, input_spec, output_spec = read_model(request)
        if output_spec.task == "detection" and request.parameters["objective"] == "labels":
            return _fine_tune_file(request, progress)
        baseline = load_graph(request, BASELINE_MODEL) if BASELINE_MODEL in request.inputs else model
        training = prepare_training(request, model, input_spec, output_spec)
        done = fine_tune(
            model,
            training.batches,
            training.make_objective,
            training.options,
            teacher=baseline,
            held_out=training.held_out,
            memory_bytes=memory_of(FINE_TUNE),
            state_file=state_file(request),
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
    told = (*training.notes, *done.notes, done.record.interruption, finding.lost)
    notes = tuple(note for note in told if note)
    return StepResult(outputs, {**training.describe(), **training_values(described)}, notes)


def _fine_tune_file(request: StepRequest, progress: Progress) -> StepResult:
    """Train the Ultralytics file itself on labelled boxes; its architecture stays what it is."""
    from boardwright.compiler.engine.distill.checkpoints import distill_ultralytics
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.compiler.engine.training.ultralytics import read_ultralytics_options

    parameters = request.parameters
    student = read_model(request)
    role = "training" if "training" in request.inputs else "calibration"
    dataset = open_dataset(request, role)
    with tempfile.TemporaryDirectory() as folder:
        path, why_not = trainable_file(request, Path(folder), student, dataset)
        if path is None:
            raise EngineError(
                "OBJECTIVE_UNFIT",
                f"The graph of a detector holds no loss for labels, and Ultralytics' trainer cannot help: "
                f"{why_not}. Train it self-distilled (objective: self-distilled).",
            )
        told = {**parameters, "seed": request.seed + int(parameters["seed"])}
        told["class_balance"] = 0.0 if parameters["class_weights"] == "none" else 1.0
        options = read_ultralytics_options(told, student[1])
        samples = labelled(dataset, min(len(dataset), parameters["training_samples"] or len(dataset)))
        done = distill_ultralytics(
            path, None, samples, student[1], student[2], options, student[0],
            on_epoch=lambda epoch: progress(epoch, options.epochs, "training"),
        )  # fmt: skip
    baseline = load_graph(request, BASELINE_MODEL) if BASELINE_MODEL in request.inputs else student[0]
    finding = check_information(done.model, baseline, dataset, student[1], student[2])
    if parameters["fail_if_information_lost"]:
        finding.require()
    described = {**done.record.describe(), "objective": "labels", "dataset": role}
    outputs = {
        MODEL: write_model(request, done.model),
        CHECKPOINT: write_bytes(request, CHECKPOINT, done.checkpoint, _TYPE),
        "fine-tuning.json": write_json(
            request, "fine-tuning.json", {**described, "information": finding.describe()}
        ),
    }
    kept = ("objective", "dataset", "trainer", "losses", "scores", "epoch")
    values = {name: described[name] for name in kept}
    notes = tuple(note for note in (*done.record.notes, finding.lost) if note)
    return StepResult(outputs, values, notes)
