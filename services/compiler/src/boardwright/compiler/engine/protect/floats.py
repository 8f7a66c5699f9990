"""Keep floats float where ONNX Runtime (1.31) would quantize them itself: a LeakyRelu of slope 1 hides them.

- Its optimisation WeightBiasQuantization gives a Conv, ConvTranspose or Gemm with float weights, whose input
  was dequantized and whose output (also behind Relu or Clip) is quantized, weights of 8 bits under one scale:
  a layer that was left in floating point would lose more than one quantized per channel.
- QDQPropagationTransformer carries a Dequantize on through what only moves values. Where a subgraph (of If
  or Loop) reads the result by name it ends the process: it takes that edge for one to an input of the node.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.editing import captured, replace_nodes
from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS, Topology

if TYPE_CHECKING:
    import onnx

_TAKEN = frozenset({"Conv", "ConvTranspose", "Gemm"})
_PASSED = frozenset({"Relu", "Clip"})
_CARRIED_ON = (MOVEMENT_OPERATORS - {"Cast"}) | {"MaxPool"}


def keep_floats(model: onnx.ModelProto, excluded: Collection[str]) -> int:
    """Guard the ``excluded`` layers of a quantized graph, in place; return how many needed it.

    What subgraphs read (each by an Identity of its own, see ``name_captured``) is guarded as well.
    """
    from onnx import helper

    topology = Topology(model.graph)
    for index, node in enumerate(topology.nodes):
        if node.op_type == "Identity" and _is_carried_into_subgraph(topology, index):
            guard = helper.make_node("LeakyRelu", node.input, node.output, name=node.name, alpha=1.0)
            node.CopyFrom(guard)
    guards = {}
    for index, node in enumerate(topology.nodes):
        if node.op_type not in _TAKEN or node.name not in excluded:
            continue
        maker = topology.producer_of(node.input[0])
        if maker is None or topology.nodes[maker].op_type != "DequantizeLinear":
            continue
        behind = topology.walk(
            [index], topology.consumers, lambda found: topology.nodes[found].op_type not in _PASSED
        )
        read = {consumer for found in behind | {index} for consumer in topology.consumers(found)}
        if any(topology.nodes[found].op_type == "QuantizeLinear" for found in read):
            guards[index] = node
    nodes = []
    for index, node in enumerate(topology.nodes):
        nodes.append(node)
        if index in guards:
            output = node.output[0]
            node.output[0] = f"{output}_unguarded"
            name = f"{node.name}_stays_float"
            nodes.append(helper.make_node("LeakyRelu", [node.output[0]], [output], name=name, alpha=1.0))
    if guards:
        replace_nodes(model.graph, nodes)
    return len(guards)


def _is_carried_into_subgraph(topology: Topology, index: int) -> bool:
    """Tell whether a subgraph reads what a node passes on from a Dequantize, through nothing but movement."""
    name = topology.nodes[index].output[0]
    if not any(name in captured(topology.nodes[reader]) for reader in topology.consumers(index)):
        return False
    moved = topology.walk(
        [index], topology.producers, lambda found: topology.nodes[found].op_type not in _CARRIED_ON
    )
    makers = {producer for found in moved | {index} for producer in topology.producers(found)}
    return any(topology.nodes[maker].op_type == "DequantizeLinear" for maker in makers)
