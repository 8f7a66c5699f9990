"""The step ``compile/ablate``."""

from __future__ import annotations

import json
from typing import Any

from boardwright.compiler.domain.passes import ABLATION, BASELINE, EVALUATION_REPORT
from boardwright.compiler.domain.plan import MODEL
from boardwright.compiler.engine.ablate import Experiment, ablate
from boardwright.compiler.kinds import ABLATE
from boardwright.compiler.steps.files import (
    clear_failures,
    host_values,
    load_graph,
    one_feed,
    read_specs,
    write_json,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements


@implements(ABLATE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Put the Variants of ``experiments`` beside the baseline.

    Inputs: ``<variant>.model.onnx`` and ``<variant>.evaluation.json`` for each of them and for the baseline.
    Output: ``ablation.json``.
    """
    parameters = request.parameters
    with clear_failures():
        input_spec, _ = read_specs(request)
        base = _experiment(request, BASELINE, ())
        experiments = [
            _experiment(request, variant, tuple(factors))
            for variant, factors in parameters["experiments"].items()
        ]
        total = len(experiments) + 1
        found = ablate(
            base,
            experiments,
            one_feed(request, base.model, input_spec),
            runs=parameters["runs"],
            on_experiment=lambda count: progress(count, total, "comparing"),
        )
    described = {**found.describe(), "host": host_values()}
    return StepResult({ABLATION: write_json(request, ABLATION, described)}, described, found.notes)


def _experiment(request: StepRequest, variant: str, factors: tuple[str, ...]) -> Experiment:
    evaluation: dict[str, Any] = json.loads(request.input(f"{variant}.{EVALUATION_REPORT}").path.read_bytes())
    return Experiment(
        variant,
        load_graph(request, f"{variant}.{MODEL}"),
        factors,
        evaluation.get("accuracy") or {},
        evaluation.get("parity") or {},
        _judged(evaluation),
    )


def _judged(evaluation: dict[str, Any]) -> str:
    """Return in words how an ``evaluation.json`` was made: figures of others are no measure of a factor."""
    views = (evaluation.get("augmentation") or {}).get("views") or []
    merged = f", {len(views)} views of each merged" if views else ""
    return f"{evaluation.get('samples', 0)} samples{merged}"
