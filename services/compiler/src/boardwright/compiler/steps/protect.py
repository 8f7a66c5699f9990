"""The step ``compile/protect``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION, EVALUATION, PROFILE, PROTECTION
from boardwright.compiler.kinds import PROTECT
from boardwright.compiler.steps.files import (
    Feeds,
    clear_failures,
    labelled,
    open_dataset,
    read_model,
    read_record,
    write_json,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    from boardwright.compiler.engine.protect.latency import LayerTimes
    from boardwright.compiler.engine.protect.protection import Protection, ProtectionOptions
    from boardwright.samples import DatasetReader

_TOLD_UNITS = 10


@implements(PROTECT)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Find what of the input ``model.onnx`` must stay in floating point, with the dataset ``calibration``.

    A budget is met on some samples and judged on others (``_judges``), those of the dataset ``evaluation``
    where there is one. Takes ``calibration-record.json`` (then nothing is observed again) and
    ``profile.json`` (then latency is told in milliseconds). Output: ``protection.json``.
    """
    from boardwright.compiler.engine.protect.metric import TaskMetric
    from boardwright.compiler.engine.protect.protection import protect_model
    from boardwright.compiler.engine.scheme import scheme_for

    parameters = request.parameters
    stages = []
    with clear_failures():
        model, input_spec, output_spec = read_model(request)
        dataset = open_dataset(request, CALIBRATION)
        evaluation = open_dataset(request, EVALUATION) if EVALUATION in request.inputs else None
        choosing, verifying = _judges(dataset, evaluation, parameters["budget_samples"])
        feeds = Feeds(dataset, model, input_spec, parameters["samples"])

        def metric(judges: tuple[DatasetReader, list[int]]) -> TaskMetric:
            return TaskMetric(model, lambda: labelled(*judges), input_spec, output_spec)

        def stage(name: str) -> None:
            stages.append(name)
            progress(len(stages), 0, name)

        found = protect_model(
            model,
            lambda: feeds,
            scheme_for(parameters["profile"]),
            _options(parameters, _times(request)),
            record=read_record(request),
            metric=lambda: metric(choosing),
            verify=(lambda: metric(verifying)) if verifying[1] else None,
            on_stage=stage,
        )
    outputs = {PROTECTION: write_json(request, PROTECTION, found.to_json())}
    return StepResult(outputs, _values(found), _warnings(found))


def _judges(
    calibration: DatasetReader, evaluation: DatasetReader | None, count: int
) -> tuple[tuple[DatasetReader, list[int]], tuple[DatasetReader, list[int]]]:
    """Return the samples that layers are chosen by, and others to judge the choice by.

    What is chosen by the evaluation samples would look better on them than it is, so labelled calibration
    samples choose, and evaluation samples judge. Without such labels every other sample of the one dataset
    with the better labels judges what the rest chose.
    """
    from boardwright.samples.reader import spread

    if evaluation is not None and _is_labelled(calibration):
        return (calibration, spread(len(calibration), count)), (evaluation, spread(len(evaluation), count))
    source = calibration if evaluation is None else evaluation
    places = spread(len(source), 2 * count)
    return (source, places[::2]), (source, places[1::2])


def _is_labelled(dataset: DatasetReader) -> bool:
    return all(sample.label is not None for sample in dataset.manifest.samples)


def _options(parameters: Any, times: LayerTimes | None) -> ProtectionOptions:
    from boardwright.compiler.engine.protect.budget import Budget
    from boardwright.compiler.engine.protect.protection import ProtectionOptions

    budget = parameters["budget"] or {}
    return ProtectionOptions(
        rules=tuple(parameters["rules"]),
        exclude=tuple(parameters["exclude"]),
        sensitivity=parameters["sensitivity"],
        samples=parameters["sensitivity_samples"],
        measured_units=parameters["measured_units"],
        metric_layers=parameters["metric_layers"],
        budget=Budget(budget.get("max_drop"), budget.get("max_latency_ms")),
        times=times,
    )


def _times(request: StepRequest) -> LayerTimes | None:
    from boardwright.compiler.engine.protect.latency import LayerTimes

    if PROFILE not in request.inputs:
        return None
    profile = json.loads(request.input(PROFILE).path.read_bytes())
    times = {str(layer["name"]): float(layer["ms"]) for layer in profile.get("layers", [])}
    return LayerTimes(times, source="where the pass profile ran, not on a board") if times else None


def _values(found: Protection) -> dict[str, Any]:
    sensitivity = found.sensitivity
    return {
        "scheme": found.scheme.label,
        "exclusions": [exclusion.reason for exclusion in found.exclusions],
        "excluded_nodes": sum(len(exclusion.nodes) for exclusion in found.exclusions),
        "conversions": found.conversions,
        "sensitivity": sensitivity.describe() if sensitivity else {},
        "most_sensitive": [unit.to_json() for unit in sensitivity.worst(_TOLD_UNITS)] if sensitivity else [],
        "budget": found.budget.to_json() if found.budget else {},
    }


def _warnings(found: Protection) -> tuple[str, ...]:
    budget = found.budget
    if budget is None or (budget.reached and budget.kept_on_others):
        return ()
    limit = budget.budget.max_drop
    verified = (budget.verified.told(limit),) if budget.verified and limit is not None else ()
    return (" ".join((budget.explanation, *verified)),)
