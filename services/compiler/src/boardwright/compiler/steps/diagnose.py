"""The step ``compile/diagnose``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION
from boardwright.compiler.domain.plan import BASELINE_MODEL
from boardwright.compiler.kinds import DIAGNOSE, integer_arithmetic
from boardwright.compiler.steps.files import (
    Feeds,
    check_information,
    clear_failures,
    host_values,
    load_graph,
    open_dataset,
    read_model,
    write_json,
)
from boardwright.jobs.step_api import Progress, StepError, StepRequest, StepResult, implements

if TYPE_CHECKING:
    import onnx


@implements(DIAGNOSE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Say what the input ``model.onnx`` runs here and why it is slower or worse than ``baseline.onnx``.

    Output: ``diagnosis.json``.
    """
    from boardwright.compiler.engine.diagnose import diagnose

    parameters = request.parameters
    if BASELINE_MODEL not in request.inputs:
        raise StepError(
            "NOTHING_TO_COMPARE",
            "diagnose compares a variant with the baseline: put it behind a pass that makes one.",
        )
    with clear_failures():
        model, input_spec, _ = read_model(request)
        baseline = load_graph(request, BASELINE_MODEL)
        feeds = list(Feeds(open_dataset(request, CALIBRATION), model, input_spec, parameters["samples"]))
        finding = check_information(request, progress, model, baseline)
        found = diagnose(
            baseline,
            model,
            feeds,
            arithmetic=integer_arithmetic(),
            runs=parameters["runs"],
            lost=finding.lost if finding is not None else "",
            cause=lambda: _cause(baseline, feeds),
            on_stage=lambda stage: progress(0, 0, stage),
        )
    host = host_values()
    values = {
        "verdict": found.verdict,
        "next": found.next_step,
        "findings": [finding.describe() for finding in found.findings],
        "integer_layers": len(found.kernels.integer_layers),
        "float_layers": len(found.kernels.float_layers),
        "conversions": len(found.kernels.conversions),
        "latency": [
            {"threads": threads, "baseline": before.describe(), "variant": after.describe()}
            for threads, (before, after) in found.latencies.items()
        ],
        "host": host,
    }
    outputs = {"diagnosis.json": write_json(request, "diagnosis.json", {**found.describe(), "host": host})}
    return StepResult(outputs, values, (found.verdict, f"Next: {found.next_step}"))


def _cause(baseline: onnx.ModelProto, feeds: Sequence[Mapping[str, Any]]) -> Mapping[str, str] | None:
    """Ask protect what in the float graph does not bear one scale; None where it knows of nothing."""
    from boardwright.compiler.engine.protect import find_cause

    found = find_cause(baseline, feeds)
    return {"sentence": found.sentence, "advice": found.advice} if found.node else None
