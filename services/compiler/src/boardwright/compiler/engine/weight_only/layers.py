"""The layers whose weights can be packed: MatMuls with a constant second factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes, drop_unread, replace_nodes

if TYPE_CHECKING:
    import numpy as np
    import onnx


@dataclass(frozen=True, slots=True)
class Layer:
    """One MatMul: its node's name, the tensor it reads, and the name of its weight, float32 [K, N]."""

    node: str
    reads: str
    weight: str


def gemms_to_matmuls(model: onnx.ModelProto) -> int:
    """Rewrite each plain Gemm over a constant weight as MatMul and Add, in place; returns how many.

    Exporters write a Linear over two axes as Gemm, which ``MatMulNBits`` has no form of.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes, changed = [], 0
    for node in model.graph.node:
        options = attributes(node)
        plain = node.op_type == "Gemm" and options.get("alpha", 1.0) == options.get("beta", 1.0) == 1.0
        if not plain or options.get("transA", 0) or node.input[1] not in constants:
            nodes.append(node)
            continue
        weight = node.input[1]
        if options.get("transB", 0):
            turned = numpy_helper.to_array(constants[weight]).T
            weight = f"{node.input[1]}_boardwright_transposed"
            if weight not in constants:
                constants[weight] = numpy_helper.from_array(np.ascontiguousarray(turned), weight)
                model.graph.initializer.append(constants[weight])
        has_bias = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_boardwright_product" if has_bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if has_bias:
            name = f"{node.name}_bias"
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=name))
        changed += 1
    if changed:
        replace_nodes(model.graph, nodes)
        drop_unread(model.graph)
    return changed


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """Return the MatMuls over a constant float32 matrix, in graph order."""
    import onnx

    matrices = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2
    }
    return [
        Layer(node.name, node.input[0], node.input[1])
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in matrices and node.input[0] not in matrices
    ]


def weight_values(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """Return every initializer as an array, by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
