"""The step ``compile/evaluate``."""

from __future__ import annotations

from boardwright.compiler.domain.passes import EVALUATION, EVALUATION_REPORT
from boardwright.compiler.domain.plan import BASELINE_MODEL
from boardwright.compiler.kinds import EVALUATE
from boardwright.compiler.steps.files import (
    clear_failures,
    host_values,
    labelled,
    notes_of,
    open_dataset,
    optional_graph,
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
        dataset = open_dataset(request, EVALUATION)
        total = min(len(dataset), parameters["samples"] or len(dataset))
        found = evaluate(
            model,
            labelled(dataset, total),
            input_spec,
            output_spec,
            baseline=optional_graph(request, BASELINE_MODEL),
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
    outputs = {EVALUATION_REPORT: write_json(request, EVALUATION_REPORT, found.describe())}
    notes = notes_of(view_note(found), label_note(found), finding=found.information)
    return StepResult(outputs, values, notes)
