"""What of a graph is observed: its float activations, and what its layers read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.editing import stored_tensors, stored_value
from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS, Topology

if TYPE_CHECKING:
    import onnx

_PASS_INFINITY = MOVEMENT_OPERATORS | {
    "Where", "Add", "Sub", "Sum", "Mul", "Div", "Neg", "Max", "Min", "Concat", "ScatterND", "ScatterElements",
    "Trilu", "GatherND", "GatherElements", "ConstantOfShape",
}  # fmt: skip


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


def infinite_tensors(model: onnx.ModelProto) -> set[str]:
    """Return the tensors that hold infinity because a constant does: masks of attention, padding of maxima.

    It is followed through what moves, selects and adds, up to what makes it finite (Softmax, MaxPool,
    Sigmoid). A layer's weights of infinity are no mask: what they spoil is not among these.
    """
    import numpy as np
    from onnx import numpy_helper

    graph = model.graph
    constants = stored_tensors(graph)
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and (tensor := stored_value(node)) is not None:
            constants[node.output[0]] = tensor
    infinite = set()
    for name, tensor in constants.items():
        if tensor.data_type in (tensor.FLOAT, tensor.FLOAT16, tensor.DOUBLE):
            values = numpy_helper.to_array(tensor)
            if np.isinf(values).any() and not np.isnan(values).any():
                infinite.add(name)
    if infinite:
        for node in graph.node:
            if node.op_type in _PASS_INFINITY and infinite.intersection(node.input):
                infinite |= {name for name in node.output if name}
    return infinite


def float_activations(model: onnx.ModelProto) -> list[str]:
    """Return the names of float32 tensors that flow through the graph: inputs and node outputs.

    Those that hold infinity by a constant are left out: no range holds them, and nothing rounds them.
    """
    import onnx

    graph = model.graph
    known = {value.name: value for value in [*graph.value_info, *graph.output, *graph.input]}
    constants = {tensor.name for tensor in graph.initializer} | infinite_tensors(model)
    names = [value.name for value in graph.input if value.name not in constants]
    names += [output for node in graph.node if node.op_type != "Constant" for output in node.output if output]
    return [
        name
        for name in names
        if name not in constants
        and name in known
        and known[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
