"""The step ``compile/convert-float16``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boardwright.compiler.domain.passes import CALIBRATION
from boardwright.compiler.domain.plan import MODEL
from boardwright.compiler.kinds import CONVERT_FLOAT16
from boardwright.compiler.steps.files import (
    Feeds,
    check_information,
    clear_failures,
    notes_of,
    open_dataset,
    read_model,
    read_record,
    told_information,
    write_json,
    write_model,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    from boardwright.compiler.engine.scheme import QuantizationScheme


@implements(CONVERT_FLOAT16)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Convert the input ``model.onnx`` to float16 where that is safe.

    Takes ``calibration-record.json`` of ``observe``; without it, a few samples of the dataset ``calibration``
    are observed where the job has one.

    Outputs: ``model.onnx``, ``conversion.json`` (what stayed in float32 and why).
    """
    from boardwright.compiler.engine.float16 import convert_float16
    from boardwright.compiler.engine.graph.prepare import prepare_graph
    from boardwright.compiler.engine.observe import observe
    from boardwright.compiler.engine.scheme import scheme_for

    parameters = request.parameters
    with clear_failures():
        model, input_spec, _ = read_model(request)
        scheme = scheme_for(parameters["profile"])
        record = read_record(request)
        if record is None and CALIBRATION in request.inputs:
            progress(0, 0, "observing")
            feeds = Feeds(open_dataset(request, CALIBRATION), model, input_spec, parameters["samples"])
            record = observe(prepare_graph(model), feeds)
        progress(0, 0, "converting")
        wanted = parameters["inputs_outputs"]
        keep_io = scheme.float16 != "everywhere" if wanted == "profile" else wanted == "float32"
        done = convert_float16(
            model,
            keep_io=keep_io,
            record=record,
            exclude=parameters["exclude"],
            protect_automatically=parameters["protect"],
        )
        finding = check_information(request, progress, done.model, model)
    values = {
        "scheme": "float16",
        "inputs_outputs": "float32" if keep_io else "float16",
        "faster_kernels": scheme.float16 != "none",
        "nodes": done.nodes,
        "nodes_in_float32": sum(len(found.nodes) for found in done.kept),
        "kept_in_float32": [found.reason for found in done.kept],
        "casts": done.casts,
        "size_bytes": done.model.ByteSize(),
        "information_checked": finding is not None,
    }
    outputs = {
        MODEL: write_model(request, done.model),
        "conversion.json": write_json(
            request, "conversion.json", {**done.describe(), **told_information(finding)}
        ),
    }
    return StepResult(outputs, values, notes_of(*done.notes, *_gains(scheme), finding=finding))


def _gains(scheme: QuantizationScheme) -> tuple[str, ...]:
    """Tell where half the bytes are all that is won."""
    if scheme.float16 != "none":
        return ()
    return (
        "No kernel of this board's runtime gets faster by float16: it casts to float32 and back around its "
        "layers. The file is half as large, and that is all.",
    )
