"""Keep float layers float: ONNX Runtime (1.31) quantizes by itself what stands between a DQ and a Q.

Its optimisation WeightBiasQuantization gives a Conv, ConvTranspose or Gemm with float weights, whose input
was dequantized and whose output (also behind Relu or Clip) is quantized, weights of 8 bits under one scale: a
layer that was left in floating point would lose more than one quantized per channel. A LeakyRelu of slope 1
behind it changes no value and hides the pattern.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.editing import replace_nodes
from boardwright.compiler.engine.graph.topology import Topology

if TYPE_CHECKING:
    import onnx

_TAKEN = frozenset({"Conv", "ConvTranspose", "Gemm"})
_PASSED = frozenset({"Relu", "Clip"})


def keep_floats(model: onnx.ModelProto, excluded: Collection[str]) -> int:
    """Guard the ``excluded`` layers of a quantized graph, in place; return how many needed it."""
    from onnx import helper

    topology = Topology(model.graph)
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
