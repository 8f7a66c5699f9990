"""What of a graph is observed: its float activations, and what its layers read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.topology import Topology

if TYPE_CHECKING:
    import onnx


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
