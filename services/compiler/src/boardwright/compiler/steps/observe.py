"""The step ``compile/observe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION, CALIBRATION_RECORD
from boardwright.compiler.kinds import OBSERVE
from boardwright.compiler.steps.files import (
    JSON_TYPE,
    Feeds,
    clear_failures,
    open_dataset,
    read_model,
    write_bytes,
)
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    from boardwright.compiler.engine.observe import CalibrationRecord

_TOLD_TENSORS = 5


@implements(OBSERVE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Observe the activations of the input ``model.onnx`` over the dataset ``calibration``.

    Outputs: ``calibration-record.json``, and a file for each toolchain in ``exports``.
    """
    from boardwright.compiler.engine.graph.prepare import prepare_graph, require_floats
    from boardwright.compiler.engine.observe import observe
    from boardwright.compiler.engine.observe.exporters import export

    parameters = request.parameters
    with clear_failures():
        model, input_spec, _ = read_model(request)
        feeds = Feeds(open_dataset(request, CALIBRATION), model, input_spec, parameters["samples"])
        prepared = prepare_graph(model)
        require_floats(prepared)
        record = observe(
            prepared,
            feeds,
            method=parameters["method"],
            sampling=parameters["sampling"],
            percentile=parameters["percentile"],
            on_sample=lambda count: progress(count, len(feeds), "observing"),
        )
        if not parameters["per_channel"]:
            record = record.without_channels()
        exports = dict(export(record, name) for name in parameters["exports"])
    outputs = {CALIBRATION_RECORD: write_bytes(request, CALIBRATION_RECORD, record.to_bytes())}
    for name, data in exports.items():
        media_type = JSON_TYPE if name.endswith(".json") else "text/plain"
        outputs[name] = write_bytes(request, name, data, media_type)
    return StepResult(outputs, _values(record), _warnings(record))


def _values(record: CalibrationRecord) -> dict[str, Any]:
    widest = sorted(record.ranges, key=lambda name: (-record.ranges[name].magnitude, name))
    return {
        "method": record.method,
        "samples": record.samples,
        "histograms": record.sampling,
        "tensors": len(record.ranges),
        "sources": record.sources(),
        "constant_tensors": record.constant_tensors(),
        "widest": {
            name: [record.ranges[name].low, record.ranges[name].high] for name in widest[:_TOLD_TENSORS]
        },
    }


def _warnings(record: CalibrationRecord) -> tuple[str, ...]:
    constant = record.constant_tensors()
    if not constant:
        return ()
    return (
        f"{len(constant)} activations took one value in all {record.samples} samples ({constant[0]!r} "
        "first): dead channels, or samples that are all alike.",
    )
