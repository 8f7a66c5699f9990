"""The step ``compile/fine-tune``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from boardwright.compiler.kinds import FINE_TUNE
from boardwright.compiler.steps.files import (
    baseline_of,
    check_information,
    clear_failures,
    labelled,
    notes_of,
    open_dataset,
    read_model,
    told_information,
    write_json,
    write_trained,
)
from boardwright.compiler.steps.training import (
    memory_of,
    prepare_training,
    state_file,
    tell,
    training_role,
    training_values,
)
from boardwright.compiler.steps.ultralytics import trainable_file
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements


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
        baseline = baseline_of(request, model)
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
        finding = check_information(request, progress, done.model, baseline, training.role)
    described = {**done.describe(), **training.describe(), **told_information(finding)}
    outputs = {
        **write_trained(request, done.model),
        "fine-tuning.json": write_json(request, "fine-tuning.json", described),
    }
    notes = notes_of(*training.notes, *done.notes, done.record.interruption, finding=finding)
    return StepResult(outputs, {**training.describe(), **training_values(described)}, notes)


def _fine_tune_file(request: StepRequest, progress: Progress) -> StepResult:
    """Train the Ultralytics file itself on labelled boxes; its architecture stays what it is."""
    from boardwright.compiler.engine.distill.checkpoints import distill_ultralytics
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.compiler.engine.training.ultralytics import read_ultralytics_options

    parameters = request.parameters
    student = read_model(request)
    role = training_role(request)
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
    baseline = baseline_of(request, student[0])
    finding = check_information(request, progress, done.model, baseline, role)
    described = {**done.record.describe(), "objective": "labels", "dataset": role}
    outputs = {
        **write_trained(request, done.model, done.checkpoint),
        "fine-tuning.json": write_json(
            request, "fine-tuning.json", {**described, **told_information(finding)}
        ),
    }
    kept = ("objective", "dataset", "trainer", "losses", "scores", "epoch")
    values = {name: described[name] for name in kept}
    return StepResult(outputs, values, notes_of(*done.record.notes, finding=finding))
