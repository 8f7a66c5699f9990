"""A graph cut into consecutive blocks of a few layers each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.layers import layer_macs
from boardwright.compiler.engine.graph.topology import Topology

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Segment:
    """A block: a graph of its own, the activations it reads, and those that later nodes read of it."""

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]


def cut(model: onnx.ModelProto, layers_per_block: int) -> list[Segment]:
    """Return blocks of ``layers_per_block`` trained layers that together lead to the last layer of ``model``.

    ``model`` is prepared: nodes in order, shapes inferred. What only follows the last layers is left out.
    """
    topology = Topology(model.graph)
    wanted = _leading_to_layers(topology)
    groups: list[list[int]] = [[]]
    count = 0
    for index in sorted(wanted):
        if index in topology.layers:
            if count == layers_per_block:
                groups.append([])
                count = 0
            count += 1
        groups[-1].append(index)
    return [_segment(model, topology, set(group)) for group in groups if group]


def multiplications(model: onnx.ModelProto) -> int:
    """Return how many multiplications the layers of ``model`` do per run, from its inferred shapes."""
    return sum(layer_macs(model, Topology(model.graph)).values())


def _leading_to_layers(topology: Topology) -> Collection[int]:
    return topology.layers | topology.walk(topology.layers, topology.producers, lambda _: False)


def _segment(model: onnx.ModelProto, topology: Topology, group: set[int]) -> Segment:
    import onnx

    nodes = [topology.nodes[index] for index in sorted(group)]
    made = {name for node in nodes for name in node.output if name}
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    inputs = tuple(name for name in read if name not in made and name not in topology.constants)
    outputs = tuple(
        name
        for node in nodes
        for name in node.output
        if name in topology.outputs or any(reader not in group for reader in topology.readers(name))
    )
    values = {
        value.name: value for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]
    }

    def described(name: str) -> onnx.ValueInfoProto:
        return values.get(name) or onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    graph = onnx.helper.make_graph(
        nodes,
        "block",
        [described(name) for name in inputs],
        [described(name) for name in outputs],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
        value_info=[values[name] for name in sorted(made) if name in values and name not in outputs],
    )
    block = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    layers = tuple(topology.nodes[index].name for index in sorted(group) if index in topology.layers)
    return Segment(block, inputs, outputs, layers)
