"""Cross-layer equalisation: channels of one layer brought to like ranges, taken back in the next layer.

(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
https://arxiv.org/abs/1906.04721, section 4.1.) Between two layers stands at most a function f with
f(s·x) = s·f(x) for s > 0: none, Relu, LeakyRelu, PRelu. Then the first layer's channel may be divided by s
and the second's multiplied; the float network stays the same. Clip (Relu6) and SiLU are no such functions:
their pairs are refused, and the record says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes, with_values
from boardwright.compiler.engine.graph.topology import Topology, describe

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "PRelu"})
_ROUNDS = 20
_CLOSE = 1e-3
_LARGEST_FACTOR = 1e3


@dataclass(frozen=True, slots=True)
class Equalization:
    """``pairs`` of layers that were equalised, ``refused`` pairs with a sentence each."""

    pairs: tuple[tuple[str, str], ...]
    refused: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {"pairs": [list(pair) for pair in self.pairs], "refused": list(self.refused)}


def equalize(model: onnx.ModelProto, excluded: set[str]) -> tuple[onnx.ModelProto, Equalization]:
    """Return ``model`` (prepared) with equalised layers: the same function, but for float rounding."""
    from onnx import numpy_helper

    pairs, refused = _pairs(model, excluded)
    names = {name for first, second in pairs for name in (*first.input[1:], second.input[1]) if name}
    values = {
        tensor.name: numpy_helper.to_array(tensor).astype("float64")
        for tensor in model.graph.initializer
        if tensor.name in names
    }
    for _ in range(_ROUNDS):
        if max((_equalize_pair(first, second, values) for first, second in pairs), default=0.0) < _CLOSE:
            break
    return with_values(model, values), Equalization(
        tuple((first.name, second.name) for first, second in pairs), tuple(refused)
    )


def _equalize_pair(first: onnx.NodeProto, second: onnx.NodeProto, values: dict[str, Array]) -> float:
    """Equalise in place; return by how much the factors differed from 1."""
    import numpy as np

    outgoing = values[first.input[1]]
    ahead = np.abs(outgoing).reshape(outgoing.shape[0], -1).max(axis=1)
    incoming, depthwise = values[second.input[1]], attributes(second).get("group", 1) > 1
    by_channel = np.abs(incoming if depthwise else incoming.swapaxes(0, 1))
    behind = by_channel.reshape(ahead.size, -1).max(axis=1)
    usable = (ahead > 0) & (behind > 0)
    factor = np.where(usable, np.sqrt(np.where(usable, ahead / np.where(usable, behind, 1), 1)), 1.0)
    factor = np.clip(factor, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    shape = (-1, *[1] * (outgoing.ndim - 1))
    values[first.input[1]] = outgoing / factor.reshape(shape)
    if len(first.input) > 2 and first.input[2]:
        values[first.input[2]] = values[first.input[2]] / factor
    place = shape if depthwise else (1, -1, *[1] * (incoming.ndim - 2))
    values[second.input[1]] = incoming * factor.reshape(place)
    return float(np.abs(np.log(factor)).max())


def _pairs(
    model: onnx.ModelProto, excluded: set[str]
) -> tuple[list[tuple[onnx.NodeProto, onnx.NodeProto]], list[str]]:
    topology = Topology(model.graph)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    pairs, refused = [], []
    for index, first in enumerate(topology.nodes):
        if not _is_convolution(topology, index, shapes) or first.name in excluded:
            continue
        between = None
        readers = readers_of_first = topology.readers(first.output[0])
        if len(readers) == 1 and not _is_convolution(topology, readers[0], shapes):
            between = topology.nodes[readers[0]]
            readers = topology.readers(between.output[0])
        if len(readers) != 1 or not _is_convolution(topology, readers[0], shapes):
            continue
        second = topology.nodes[readers[0]]
        if (
            second.name in excluded
            or second.input[0] in topology.outputs
            or first.output[0] in topology.outputs
        ):
            continue
        channels, groups = shapes[first.input[1]][0], attributes(second).get("group", 1)
        if groups > 1 and (groups != channels or shapes[second.input[1]][0] != groups):
            continue
        if between is not None and not _passes(topology, readers_of_first[0]):
            refused.append(
                f"{describe(first)} and {describe(second)}: {describe(between)} stands between them "
                "and does not pass a factor unchanged."
            )
            continue
        pairs.append((first, second))
    return pairs, refused


def _passes(topology: Topology, index: int) -> bool:
    homogeneous = topology.nodes[index].op_type in _HOMOGENEOUS
    return homogeneous and len(topology.activation_inputs(index)) == 1


def _is_convolution(topology: Topology, index: int, shapes: dict[str, tuple[int, ...]]) -> bool:
    node = topology.nodes[index]
    constants = [name for name in node.input[1:] if name]
    return (
        node.op_type == "Conv"
        and index in topology.layers
        and all(name in shapes and len(topology.readers(name)) == 1 for name in constants)
    )
