"""The recovered graph as a file: float weights, and the activation ranges that were chosen with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.editing import copy_of
from boardwright.compiler.engine.observe import CalibrationRecord, TensorRange

if TYPE_CHECKING:
    import onnx

_KEY = "boardwright.recovered"
_SCHEMA = "boardwright.recovered.v1"


def write_recovered(model: onnx.ModelProto, ranges: Mapping[str, TensorRange]) -> onnx.ModelProto:
    """Return ``model`` with the ranges in its metadata, so that one file holds all."""
    import onnx

    written = copy_of(model)
    kept = [entry for entry in written.metadata_props if entry.key != _KEY]
    del written.metadata_props[:]
    written.metadata_props.extend(kept)
    values = {
        "schema": _SCHEMA,
        "ranges": {name: [found.low, found.high] for name, found in sorted(ranges.items())},
    }
    onnx.helper.set_model_props(
        written, {**{entry.key: entry.value for entry in kept}, _KEY: json.dumps(values, allow_nan=False)}
    )
    return written


def read_recovered(
    recovered: onnx.ModelProto, prepared: onnx.ModelProto, record: CalibrationRecord
) -> tuple[onnx.ModelProto, CalibrationRecord]:
    """Return the recovered graph without its metadata, and ``record`` with its ranges.

    Raises:
        EngineError: RECOVERED_UNFIT, when it was not made by ``recover``, or not of ``prepared``.
    """
    found = next((entry.value for entry in recovered.metadata_props if entry.key == _KEY), None)
    values = json.loads(found) if found else {}
    if values.get("schema") != _SCHEMA:
        raise EngineError(
            "RECOVERED_UNFIT", "This graph holds no recovered ranges: run the pass recover again."
        )
    if [node.name for node in recovered.graph.node] != [node.name for node in prepared.graph.node]:
        raise EngineError(
            "RECOVERED_UNFIT", "The recovered graph was made from another model: run recover on this one."
        )
    model = copy_of(recovered)
    kept = [entry for entry in model.metadata_props if entry.key != _KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    ranges = {name: TensorRange(float(low), float(high)) for name, (low, high) in values["ranges"].items()}
    return model, replace(record, ranges={**record.ranges, **ranges})
