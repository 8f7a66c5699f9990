"""Where a quantized graph rounds: read from the graph that the quantizer itself made.

Training then rounds exactly what the device will round, whatever rules the quantizer follows for joins,
fused activations, biases and outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

from boardwright.compiler.engine.errors import QuantizationFailed

if TYPE_CHECKING:
    import onnx

_KEPT_ON_GRID = frozenset(
    {
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "MaxPool",
        "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Identity",
    }
)  # fmt: skip
"""Operators whose outputs lie on their input's grid: rounding again under the same scale does nothing."""

_CLIPPING = frozenset({"Relu", "Clip"})
_OF_FIXED_RANGE = frozenset({"Softmax"})
"""Operators whose outputs the quantizer takes to be between 0 and 1, whatever was observed."""


@dataclass(frozen=True, slots=True)
class ActivationPlace:
    """Activations that share one scale. ``tensors`` are all, ``rounded`` those that must be rounded anew.

    A real value r is stored as round(r / scale) + zero_point, kept within ``low`` and ``high``. The scale of
    a ``fixed`` place does not follow from a range.
    """

    tensors: tuple[str, ...]
    rounded: tuple[str, ...]
    scale: float
    zero_point: int
    low: int
    high: int
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class WeightPlace:
    """A weight by its name in the float graph; ``axis`` has a scale per entry, None: one scale for all."""

    tensor: str
    axis: int | None


@dataclass(frozen=True, slots=True)
class QuantizationPlaces:
    """All that a quantized graph rounds. ``biases`` are names of biases that become 32-bit integers."""

    activations: tuple[ActivationPlace, ...]
    weights: tuple[WeightPlace, ...]
    biases: frozenset[str]


def find_places(quantized: onnx.ModelProto, prepared: onnx.ModelProto) -> QuantizationPlaces:
    """Return where ``quantized``, made from ``prepared``, rounds.

    Raises:
        QuantizationFailed: PLACES_UNKNOWN, when it rounds a tensor that ``prepared`` does not have.
    """
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    known = {name for node in prepared.graph.node for name in node.output}
    known |= {value.name for value in prepared.graph.input}
    constants = {tensor.name for tensor in prepared.graph.initializer}
    constants |= {node.output[0] for node in prepared.graph.node if node.op_type == "Constant"}
    dequantized = {
        node.input[0]: node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"
    }
    groups: dict[tuple[str, str], list[str]] = {}
    weights: list[WeightPlace] = []
    biases: set[str] = set()
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear":
            name = node.input[0] if node.input[0] in known else dequantized.get(node.output[0], "")
            if name in constants or node.input[0] in stored:
                continue
            if name not in known:
                raise _unknown(node.input[0])
            groups.setdefault((node.input[1], node.input[2]), []).append(name)
        elif node.op_type == "DequantizeLinear" and node.input[0] in stored:
            tensor = stored[node.input[0]]
            name = node.input[0].removesuffix("_quantized")
            if tensor.data_type == TensorProto.INT32:
                biases.add(name)
            elif name in constants:
                per_channel = numpy_helper.to_array(stored[node.input[1]]).ndim > 0
                weights.append(WeightPlace(name, _axis(node) if per_channel else None))
    _join_clipped(groups, prepared)
    activations = [_activation(key, names, stored, prepared) for key, names in groups.items()]
    return QuantizationPlaces(tuple(activations), tuple(dict.fromkeys(weights)), frozenset(biases))


def _join_clipped(groups: dict[tuple[str, str], list[str]], prepared: onnx.ModelProto) -> None:
    """Give a Relu's or Clip's input the group of its output, in place: it takes one range for both."""
    readers = Counter(name for node in prepared.graph.node for name in node.input)
    for node in prepared.graph.node:
        if node.op_type not in _CLIPPING or readers[node.input[0]] != 1:
            continue
        before = next((key for key, names in groups.items() if node.input[0] in names), None)
        after = next((key for key, names in groups.items() if node.output[0] in names), None)
        if before is not None and after is not None and before != after:
            groups[after].extend(groups.pop(before))


def _activation(
    key: tuple[str, str],
    names: list[str],
    stored: Mapping[str, onnx.TensorProto],
    prepared: onnx.ModelProto,
) -> ActivationPlace:
    scale = numpy_helper.to_array(stored[key[0]])
    zero_point = numpy_helper.to_array(stored[key[1]])
    bounds = np.iinfo(zero_point.dtype)
    producers = {name: node for node in prepared.graph.node for name in node.output}
    rounded = tuple(
        name
        for name in names
        if name not in producers
        or producers[name].op_type not in _KEPT_ON_GRID
        or producers[name].input[0] not in names
    )
    fixed = any(name in producers and producers[name].op_type in _OF_FIXED_RANGE for name in names)
    return ActivationPlace(
        tuple(names), rounded, float(scale), int(zero_point), int(bounds.min), int(bounds.max), fixed
    )


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def _unknown(name: str) -> QuantizationFailed:
    return QuantizationFailed(
        "PLACES_UNKNOWN",
        f"The quantizer rounds {name!r}, which the float graph does not have: training cannot simulate it. "
        "Exclude the node that makes it.",
    )
