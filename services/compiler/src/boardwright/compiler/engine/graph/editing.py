"""What all that reads or rewrites graphs needs: attributes, constants, copies, further outputs, new nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name: numbers, lists of them, bytes, tensors, graphs."""
    import onnx

    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def stored_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the constants of a graph by name: initializers, and what Constant nodes hold."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and (tensor := stored_value(node)) is not None:
            stored[node.output[0]] = tensor
    return stored


def shapes_of(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a graph declares for its activations, with 0 for free axes.

    Tensors of which nothing is known are not among them.
    """
    return {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def stored_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor that a Constant or ConstantOfShape holds; None where it holds none."""
    return next((entry.t for entry in node.attribute if entry.name == "value"), None)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the branches and bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured(node: onnx.NodeProto) -> list[str]:
    """Return the names of outer tensors that a node's subgraphs read, in order, without repetition."""
    names: dict[str, None] = {}
    for graph in subgraphs(node):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {name for inner in graph.node for name in inner.output}
        for inner in graph.node:
            names |= dict.fromkeys(name for name in [*inner.input, *captured(inner)] if name not in own)
        names |= dict.fromkeys(value.name for value in graph.output if value.name not in own)
    return [name for name in names if name]


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that can be changed; weights are copied too."""
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return ``model`` with these tensors among its outputs; itself where none is missing.

    Outputs and inputs of the graph are there already. Types are left to the runtime.
    """
    import onnx

    present = {value.name for value in (*model.graph.output, *model.graph.input)}
    added = [name for name in dict.fromkeys(names) if name not in present]
    if not added:
        return model
    copy = copy_of(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
    return copy


def with_values(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """Return ``model`` with other values, of the same shapes, for its float32 initializers of these names.

    Raises:
        ValueError: a value has another shape.
    """
    import numpy as np
    from onnx import numpy_helper

    copy = copy_of(model)
    for tensor in copy.graph.initializer:
        if tensor.name in values and tensor.data_type == tensor.FLOAT:
            value = np.asarray(values[tensor.name], np.float32, order="C")
            if list(value.shape) != list(tensor.dims):
                raise ValueError(f"{tensor.name!r} is {list(tensor.dims)}, not {list(value.shape)}")
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return copy


def dequantized_names(quantized: onnx.ModelProto) -> dict[str, str]:
    """Return by the name of each tensor that is rounded what it is called behind the first Dequantize.

    In front of its Quantize it may be scaled, and is not rounded yet.
    """
    rounded = {
        node.output[0]: node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"
    }
    found: dict[str, str] = {}
    for node in quantized.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in rounded:
            found.setdefault(rounded[node.input[0]], node.output[0])
    return found


def give_constant(
    graph: onnx.GraphProto,
    stored: dict[str, onnx.TensorProto],
    node: onnx.NodeProto,
    slot: int,
    name: str,
    value: Array,
) -> None:
    """Let input ``slot`` of a node be a constant of its own, in place: others may read the one it had.

    ``stored`` are the graph's initializers by name; one of this ``name`` is written over.
    """
    from onnx import numpy_helper

    tensor = numpy_helper.from_array(value, name)
    if name in stored:
        stored[name].CopyFrom(tensor)
    else:
        graph.initializer.append(tensor)
        stored[name] = graph.initializer[-1]
    while len(node.input) <= slot:
        node.input.append("")
    node.input[slot] = name


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Let ``nodes`` be those of the graph, in place; some of them may be its own."""
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put the nodes into an order in which they can run, in place; what their subgraphs read counts, too.

    Raises:
        graphlib.CycleError: a node needs its own output.
    """
    from graphlib import TopologicalSorter

    nodes = list(graph.node)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = {
        index: [makers[name] for name in (*node.input, *captured(node)) if name in makers]
        for index, node in enumerate(nodes)
    }
    replace_nodes(graph, (nodes[index] for index in TopologicalSorter(needs).static_order()))


def drop_unread(graph: onnx.GraphProto) -> None:
    """Take out the initializers that nothing reads, in place."""
    read = {name for node in graph.node for name in [*node.input, *captured(node)]}
    read |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)
