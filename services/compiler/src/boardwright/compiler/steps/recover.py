"""The step ``compile/recover``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from boardwright.compiler.kinds import RECOVER
from boardwright.compiler.steps.files import (
    ONNX_TYPE,
    clear_failures,
    open_dataset,
    read_model,
    read_record,
    write_bytes,
    write_json,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    from boardwright.compiler.engine.observe import Feed
    from boardwright.compiler.engine.protect import Exclusion
    from boardwright.compiler.engine.recover import RecoverOptions, Recovery

RECOVERED_MODEL, PROTECTION = "recovered.onnx", "protection.json"


@implements(RECOVER)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Make the input ``model.onnx`` fit to be rounded, with the dataset ``calibration``.

    Takes ``calibration-record.json`` and ``protection.json`` where earlier passes gave them. Outputs:
    ``recovered.onnx`` for the pass quantize, ``recovery.json`` (every method's effect).
    """
    import numpy as np

    from boardwright.compiler.engine.graph.inspect import graph_inputs
    from boardwright.compiler.engine.recover import recover
    from boardwright.compiler.engine.scheme import scheme_for, with_granularity
    from boardwright.model import preprocess

    parameters = request.parameters
    with clear_failures():
        model, input_spec, _ = read_model(request)
        dataset = open_dataset(request, "calibration")
        total = min(len(dataset), parameters["samples"] or len(dataset))
        batch = int(graph_inputs(model)[input_spec.name][0][0] or 1)

        def feeds() -> Iterator[Feed]:
            for sample in dataset.samples(total):
                yield {input_spec.name: np.repeat(preprocess(sample.image, input_spec)[0], batch, axis=0)}

        found = recover(
            model,
            feeds,
            with_granularity(scheme_for(parameters["profile"]), parameters["granularity"]),
            _options(parameters),
            record=read_record(request),
            exclusions=read_exclusions(request, parameters["protect"]),
            exclude=parameters["exclude"],
            on_progress=lambda stage, done, count: progress(done, count, stage),
        )
        recovered = found.file().SerializeToString(deterministic=True)
    outputs = {
        RECOVERED_MODEL: write_bytes(request, RECOVERED_MODEL, recovered, ONNX_TYPE),
        "recovery.json": write_json(request, "recovery.json", found.describe()),
    }
    return StepResult(outputs, _values(found), found.notes)


def read_exclusions(request: StepRequest, protect: bool) -> tuple[Exclusion, ...] | None:
    """Return what an earlier pass protect found; nothing where none is wanted; None: find it anew."""
    from boardwright.compiler.engine.protect import Exclusion

    if not protect:
        return ()
    if PROTECTION not in request.inputs:
        return None
    values = json.loads(request.input(PROTECTION).path.read_bytes())
    return tuple(Exclusion.from_json(entry) for entry in values["exclusions"])


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
