"""The step ``compile/evaluate``."""

from __future__ import annotations

from boardwright.compiler.kinds import EVALUATE
from boardwright.compiler.steps.files import (
    BASELINE_MODEL,
    clear_failures,
    host_values,
    labelled,
    load_graph,
    open_dataset,
    read_model,
    write_json,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements


@implements(EVALUATE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Judge the input ``model.onnx`` on the dataset ``evaluation``, beside ``baseline.onnx`` if it is given.

    Output: ``evaluation.json``, with the tables per class. Values: ``accuracy`` and ``parity``, fractions of
    1; ``intervals`` (95 %), ``by_scale``, ``augmentation``.
    """
    from boardwright.compiler.engine.evaluate import Augmentation, evaluate, label_note, view_note

    parameters = request.parameters
    with clear_failures():
        model, input_spec, output_spec = read_model(request)
        dataset = open_dataset(request, "evaluation")
        total = min(len(dataset), parameters["samples"] or len(dataset))
        found = evaluate(
            model,
            labelled(dataset, total),
            input_spec,
            output_spec,
            baseline=load_graph(request, BASELINE_MODEL) if BASELINE_MODEL in request.inputs else None,
            augmentation=Augmentation(
                flip=parameters["augment_flip"],
                scales=tuple(parameters["augment_scales"]),
                merge=parameters["augment_merge"],
            ),
            scales=parameters["scales"],
            on_sample=lambda count: progress(count, total, "evaluating"),
            on_stage=lambda what: progress(total, total, what),
        )
        if parameters["fail_if_information_lost"]:
            found.information.require()
    values = {**found.summary(), "host": host_values()}
    outputs = {"evaluation.json": write_json(request, "evaluation.json", found.describe())}
    notes = (view_note(found), label_note(found), found.information.lost)
    return StepResult(outputs, values, tuple(note for note in notes if note))
