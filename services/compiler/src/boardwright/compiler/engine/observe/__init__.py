"""Pass ``observe``: ranges of every activation over calibration samples, in constant memory.

The graph is given one pair of ReduceMin and ReduceMax per activation and a ReduceMean per layer input, so
that a run returns two numbers per tensor and one per channel instead of the tensor. Nothing of an image is
kept once it has run: 100 images and 100,000 take the same memory. Ranges of two runs merge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.graph.prepare import opset_of
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.graph.topology import Topology

if TYPE_CHECKING:
    import numpy as np
    import onnx

Feed = Mapping[str, "np.ndarray[Any, Any]"]

_SCHEMA = "boardwright.calibration-record.v1"
_LOW, _HIGH, _MEAN = "boardwright_low_", "boardwright_high_", "boardwright_mean_"
_AXES_AS_INPUT = 18  # the opset from which ReduceMean takes its axes as an input


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The smallest and largest value a tensor took."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    def merge(self, other: TensorRange) -> TensorRange:
        """Return the range that covers both."""
        return TensorRange(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """Ranges by tensor name, the method that chose them, and how many samples they come from.

    ``means`` holds, for each tensor that a layer reads, the mean of each of its channels (axis 1).
    """

    method: str
    samples: int
    ranges: Mapping[str, TensorRange]
    means: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able values; ``from_json`` reads them back."""
        return {
            "schema": _SCHEMA,
            "method": self.method,
            "samples": self.samples,
            "ranges": {name: [found.low, found.high] for name, found in sorted(self.ranges.items())},
            "means": {name: list(values) for name, values in sorted(self.means.items())},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CalibrationRecord:
        """Read a record back.

        Raises:
            EngineError: RECORD_UNKNOWN, when it is of another schema.
        """
        if values.get("schema") != _SCHEMA:
            raise EngineError(
                "RECORD_UNKNOWN", f"This is no calibration record of schema {_SCHEMA}: observe again."
            )
        ranges = {
            name: TensorRange(float(low), float(high)) for name, (low, high) in values["ranges"].items()
        }
        means = {name: tuple(map(float, found)) for name, found in values["means"].items()}
        return cls(str(values["method"]), int(values["samples"]), ranges, means)

    def to_bytes(self) -> bytes:
        """Return the record as canonical JSON."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def observe(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    *,
    threads: int = 0,
    on_sample: Callable[[int], None] = lambda _: None,
) -> CalibrationRecord:
    """Run every feed through ``model``; return the exact range of each float activation and channel means.

    Each feed maps input names to arrays of the inputs' shapes. Memory does not grow with the number of feeds.

    Raises:
        DatasetUnfit: CALIBRATION_EMPTY, when there is no feed.
        EngineError: CALIBRATION_NOT_FINITE, when an activation becomes NaN or infinite.
    """
    import numpy as np
    import onnx

    model = onnx.shape_inference.infer_shapes(model)
    watched = float_activations(model)
    averaged = [name for name in layer_inputs(model) if name in set(watched)]
    session = open_session(_with_reductions(model, watched, averaged), threads=threads)
    inputs = {value.name for value in session.get_inputs()}
    names = [_LOW + name for name in watched] + [_HIGH + name for name in watched]
    names += [_MEAN + name for name in averaged]
    ranges: dict[str, TensorRange] = {}
    sums: dict[str, np.ndarray[Any, Any]] = {}
    count = 0
    for feed in feeds:
        values = dict(
            zip(names, session.run(names, {k: v for k, v in feed.items() if k in inputs}), strict=True)
        )
        for tensor in watched:
            found = TensorRange(float(values[_LOW + tensor]), float(values[_HIGH + tensor]))
            _check_finite(tensor, found, count)
            ranges[tensor] = ranges[tensor].merge(found) if tensor in ranges else found
        for tensor in averaged:
            mean = values[_MEAN + tensor].astype(np.float64)
            sums[tensor] = sums[tensor] + mean if tensor in sums else mean
        count += 1
        on_sample(count)
    if not count:
        raise DatasetUnfit(
            "CALIBRATION_EMPTY",
            "There is no sample to calibrate with: add samples to the dataset and seal it.",
        )
    means = {tensor: tuple(float(value) / count for value in total) for tensor, total in sums.items()}
    return CalibrationRecord("min-max", count, ranges, means)


def layer_inputs(model: onnx.ModelProto) -> list[str]:
    """Return the activations that Conv and Gemm layers read, whose channels are axis 1."""
    topology = Topology(model.graph)
    return list(
        dict.fromkeys(
            node.input[0]
            for index, node in enumerate(topology.nodes)
            if node.op_type in ("Conv", "Gemm")
            and topology.is_weighted(index)
            and node.input[0] not in topology.constants
        )
    )


def float_activations(model: onnx.ModelProto) -> list[str]:
    """Return the names of float32 tensors that flow through the graph: inputs and node outputs."""
    import onnx

    graph = model.graph
    known = {value.name: value for value in [*graph.value_info, *graph.output, *graph.input]}
    constants = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constants]
    names += [output for node in graph.node if node.op_type != "Constant" for output in node.output if output]
    return [
        name
        for name in names
        if name in known and known[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]


def _with_reductions(model: onnx.ModelProto, tensors: list[str], averaged: list[str]) -> onnx.ModelProto:
    import onnx

    augmented = onnx.ModelProto()
    augmented.CopyFrom(model)
    known = {
        value.name: value for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]
    }
    for tensor in tensors:
        for prefix, operator in ((_LOW, "ReduceMin"), (_HIGH, "ReduceMax")):
            name = prefix + tensor
            node = onnx.helper.make_node(operator, [tensor], [name], name=name, keepdims=0)
            augmented.graph.node.append(node)
            augmented.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [])
            )
    for tensor in averaged:
        name = _MEAN + tensor
        rank = len(known[tensor].type.tensor_type.shape.dim)
        axes = [axis for axis in range(rank) if axis != 1]
        inputs, options = [tensor], {"axes": axes}
        if opset_of(model) >= _AXES_AS_INPUT:
            axes_name = f"boardwright_axes_{rank}"
            if not any(stored.name == axes_name for stored in augmented.graph.initializer):
                stored = onnx.helper.make_tensor(axes_name, onnx.TensorProto.INT64, [len(axes)], axes)
                augmented.graph.initializer.append(stored)
            inputs, options = [tensor, axes_name], {}
        node = onnx.helper.make_node("ReduceMean", inputs, [name], name=name, keepdims=0, **options)
        augmented.graph.node.append(node)
        augmented.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return augmented


def _check_finite(tensor: str, found: TensorRange, sample: int) -> None:
    if not (found.low > float("-inf") and found.high < float("inf") and found.low <= found.high):
        raise EngineError(
            "CALIBRATION_NOT_FINITE",
            f"Sample {sample} drives the activation {tensor!r} to {found.low} … {found.high}. "
            "Check the weights for NaN (import notes them) and the input spec's scaling.",
        )
