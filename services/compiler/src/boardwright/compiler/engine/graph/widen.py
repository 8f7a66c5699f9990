"""Make a graph of float16, bfloat16 or float64 one of float32, which every pass starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_TYPE_ATTRIBUTES = frozenset({"to", "dtype"})


def to_float32(model: onnx.ModelProto) -> dict[str, int]:
    """Turn every tensor of another floating-point type into float32, in place.

    Weights, constants, casts, declared types, inputs and outputs all follow, in subgraphs and functions too.
    Returns how many stored tensors were of which type, by the type's name; empty when none was.
    """
    import onnx

    types = onnx.TensorProto
    others = {types.FLOAT16: "float16", types.BFLOAT16: "bfloat16", types.DOUBLE: "float64"}
    counts: dict[str, int] = {}

    def widen_tensor(tensor: onnx.TensorProto) -> None:
        import numpy as np

        if tensor.data_type in others:
            counts[others[tensor.data_type]] = counts.get(others[tensor.data_type], 0) + 1
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    def widen_nodes(nodes: object) -> None:
        for node in nodes:  # type: ignore[attr-defined]  # a repeated field
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    widen_tensor(attribute.t)
                if attribute.name in _TYPE_ATTRIBUTES and attribute.i in others:
                    attribute.i = types.FLOAT
                if attribute.HasField("g"):
                    widen_graph(attribute.g)
                for inner in attribute.graphs:
                    widen_graph(inner)

    def widen_type(kind: onnx.TypeProto) -> None:
        for holder in ("tensor_type", "sparse_tensor_type"):
            if kind.HasField(holder) and getattr(kind, holder).elem_type in others:
                getattr(kind, holder).elem_type = types.FLOAT
        for holder in ("sequence_type", "optional_type"):
            if kind.HasField(holder):
                widen_type(getattr(kind, holder).elem_type)

    def widen_graph(graph: onnx.GraphProto) -> None:
        for tensor in [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]:
            widen_tensor(tensor)
        for value in [*graph.input, *graph.output, *graph.value_info]:
            widen_type(value.type)
        widen_nodes(graph.node)

    widen_graph(model.graph)
    for function in model.functions:
        for value in function.value_info:
            widen_type(value.type)
        widen_nodes(function.node)
    return counts
