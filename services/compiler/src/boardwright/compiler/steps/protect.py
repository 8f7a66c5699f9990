"""The step ``compile/protect``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from boardwright.compiler.kinds import PROTECT
from boardwright.compiler.steps.files import (
    clear_failures,
    labelled,
    open_dataset,
    read_model,
    write_json,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    from boardwright.compiler.engine.observe import CalibrationRecord, Feed
    from boardwright.compiler.engine.protect.latency import LayerTimes
    from boardwright.compiler.engine.protect.protection import Protection, ProtectionOptions
    from boardwright.samples import DatasetReader

_RECORD, _PROFILE = "calibration-record.json", "profile.json"
_TOLD_UNITS = 10


@implements(PROTECT)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Find what of the input ``model.onnx`` must stay in floating point, with the dataset ``calibration``.

    A budget is met on some samples and judged on others (``_judges``), those of the dataset ``evaluation``
    where there is one. Takes ``calibration-record.json`` (then nothing is observed again) and
    ``profile.json`` (then latency is told in milliseconds). Output: ``protection.json``.
    """
    import numpy as np

    from boardwright.compiler.engine.graph.inspect import graph_inputs
    from boardwright.compiler.engine.protect.metric import TaskMetric
    from boardwright.compiler.engine.protect.protection import protect_model
    from boardwright.compiler.engine.scheme import scheme_for
    from boardwright.model import preprocess

    parameters = request.parameters
    stages = []
    with clear_failures():
        model, input_spec, output_spec = read_model(request)
        dataset = open_dataset(request, "calibration")
        total = min(len(dataset), parameters["samples"] or len(dataset))
        evaluation = open_dataset(request, "evaluation") if "evaluation" in request.inputs else None
        choosing, verifying = _judges(dataset, evaluation, parameters["budget_samples"])
        batch = int(graph_inputs(model)[input_spec.name][0][0] or 1)

        def feeds() -> Iterator[Feed]:
            for sample in dataset.samples(total):
                yield {input_spec.name: np.repeat(preprocess(sample.image, input_spec)[0], batch, axis=0)}

        def metric(judges: tuple[DatasetReader, list[int]]) -> TaskMetric:
            return TaskMetric(model, lambda: labelled(*judges), input_spec, output_spec)

        def stage(name: str) -> None:
            stages.append(name)
            progress(len(stages), 0, name)

        found = protect_model(
            model,
            feeds,
            scheme_for(parameters["profile"]),
            _options(parameters, _times(request)),
            record=_record(request),
            metric=lambda: metric(choosing),
            verify=(lambda: metric(verifying)) if verifying[1] else None,
            on_stage=stage,
        )
    outputs = {"protection.json": write_json(request, "protection.json", found.to_json())}
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


def _record(request: StepRequest) -> CalibrationRecord | None:
    from boardwright.compiler.engine.observe import CalibrationRecord

    if _RECORD not in request.inputs:
        return None
    return CalibrationRecord.from_json(json.loads(request.input(_RECORD).path.read_bytes()))


def _times(request: StepRequest) -> LayerTimes | None:
    from boardwright.compiler.engine.protect.latency import LayerTimes

    if _PROFILE not in request.inputs:
        return None
    profile = json.loads(request.input(_PROFILE).path.read_bytes())
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
