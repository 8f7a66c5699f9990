"""The step ``compile/recover``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION, RECOVERED_MODEL
from boardwright.compiler.kinds import RECOVER
from boardwright.compiler.steps.files import (
    Feeds,
    clear_failures,
    open_dataset,
    read_exclusions,
    read_model,
    read_record,
    write_json,
    write_model,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    from boardwright.compiler.engine.recover import RecoverOptions, Recovery


@implements(RECOVER)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Make the input ``model.onnx`` fit to be rounded, with the dataset ``calibration``.

    Takes ``calibration-record.json`` and ``protection.json`` where earlier passes gave them. Outputs:
    ``recovered.onnx`` for the pass quantize, ``recovery.json`` (every method's effect).
    """
    from boardwright.compiler.engine.recover import recover
    from boardwright.compiler.engine.scheme import scheme_for, with_granularity

    parameters = request.parameters
    with clear_failures():
        model, input_spec, output_spec = read_model(request)
        feeds = Feeds(open_dataset(request, CALIBRATION), model, input_spec, parameters["samples"])
        found = recover(
            model,
            lambda: feeds,
            with_granularity(scheme_for(parameters["profile"]), parameters["granularity"]),
            _options(parameters),
            record=read_record(request),
            exclusions=read_exclusions(request),
            exclude=parameters["exclude"],
            specs=(input_spec, output_spec),
            on_progress=lambda stage, done, count: progress(done, count, stage),
        )
        outputs = {
            RECOVERED_MODEL: write_model(request, found.file(), RECOVERED_MODEL),
            "recovery.json": write_json(request, "recovery.json", found.describe()),
        }
    return StepResult(outputs, _values(found), found.notes)


def _options(parameters: Any) -> RecoverOptions:
    from boardwright.compiler.engine.recover import ReconstructionOptions, RecoverOptions, RoundingOptions

    return RecoverOptions(
        methods=tuple(parameters["methods"]),
        samples=parameters["learn_samples"],
        held_out=parameters["held_out_samples"],
        reconstruction=ReconstructionOptions(
            layers_per_block=parameters["layers_per_block"], work=parameters["work"], seed=parameters["seed"]
        ),
        rounding=RoundingOptions(seed=parameters["seed"]),
        dense_heads=parameters["dense_heads"],
    )


def _values(found: Recovery) -> dict[str, Any]:
    described = found.describe()
    told = ("method", "error_before", "error_after", "applied", "reason")
    methods = [{name: method[name] for name in told} for method in described["methods"]]
    return {**described, "methods": methods}
