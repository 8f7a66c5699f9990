"""Softmax between integers: how small the range of its shares may be.

Where a Softmax reads what an integer product gives, and its shares go into another product, ONNX Runtime
has an integer kernel (QLinearSoftmax). In version 1.31 it overflows where the largest share that fits is
less than 1.8 times the mean one: nearly even shares came out with 0 dB instead of 57, for any length and
8-bit type with all 256 steps. PyTorch's attention is exported so, with both factors scaled before the
product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.editing import attributes, shapes_of
from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS, Topology
from boardwright.compiler.engine.observe import TensorRange

if TYPE_CHECKING:
    import onnx

_LEAST_SHARE = 2.0  # of the mean one


def with_room_for_shares(model: onnx.ModelProto, ranges: Mapping[str, TensorRange]) -> dict[str, TensorRange]:
    """Return ``ranges`` with those of each Softmax's shares reaching twice the mean share; 1 if unknown.

    So do those behind operators that only move values: runtimes move conversions past them.
    """
    topology, shapes = Topology(model.graph), shapes_of(model.graph)
    found = dict(ranges)
    for index, node in enumerate(topology.nodes):
        if node.op_type != "Softmax":
            continue
        shape, axis = shapes.get(node.output[0], ()), attributes(node).get("axis", -1)
        length = shape[axis] if -len(shape) <= axis < len(shape) else 0
        least = min(_LEAST_SHARE / length, 1.0) if length > 0 else 1.0
        moved = topology.walk(
            [index],
            topology.consumers,
            lambda other: topology.nodes[other].op_type not in MOVEMENT_OPERATORS,
        )
        for member in moved | {index}:
            for name in topology.nodes[member].output:
                if name in found and found[name].high < least:
                    found[name] = TensorRange(found[name].low, least)
    return found
