"""One way of writing what exporters write in several: so that no pass has to know the others.

- ``drop_initializer_inputs``: weights that old files list among the inputs (IR version 3 demanded it).
- ``drop_unread_inputs``: what only training read (a flag, a rate of dropout).
- ``fold_gemm_factors``: alpha and beta of a Gemm go into its weight and bias.
- ``dequantize_weights``: weights stored as integers become floats again.
- ``unshare_quantization``: each Quantize and Dequantize gets constants of its own.
- ``name_captured``: tensors that If, Loop and Scan read from outside get an Identity of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import (
    attributes,
    captured,
    copy_of,
    drop_unread,
    replace_nodes,
    stored_tensors,
    subgraphs,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_INITIALIZERS_ALONE = 4
"""The IR version from which initializers need not be inputs as well."""


def drop_initializer_inputs(model: onnx.ModelProto) -> int:
    """Take weights out of the graph's inputs, in place; return how many there were."""
    stored = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in stored]
    dropped = len(model.graph.input) - len(kept)
    if dropped:
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, _INITIALIZERS_ALONE)
    return dropped


def drop_unread_inputs(model: onnx.ModelProto) -> list[str]:
    """Take inputs that nothing reads out of the graph, in place, and return their names; one is left."""
    graph = model.graph
    read = {name for node in graph.node for name in [*node.input, *captured(node)]}
    read |= {value.name for value in graph.output}
    unread = [value.name for value in graph.input if value.name not in read]
    if len(unread) == len(graph.input):
        return []
    kept = [value for value in graph.input if value.name in read]
    del graph.input[:]
    graph.input.extend(kept)
    return unread


def fold_gemm_factors(graph: onnx.GraphProto) -> int:
    """Multiply alpha and beta of each Gemm into its constants, in place; return how many Gemms changed.

    ONNX Runtime's quantizer (1.31) sets beta to 1 without changing the bias, and its integer Gemm takes no
    alpha. Factors of operands that are computed stay as they are.
    """
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    changed = 0
    for node in graph.node:
        if node.op_type != "Gemm" or node.domain not in ("", "ai.onnx"):
            continue
        folded = False
        for attribute in node.attribute:
            place = {"alpha": 1, "beta": 2}.get(attribute.name, len(node.input))
            if attribute.f == 1.0 or place >= len(node.input) or node.input[place] not in stored:
                continue
            name = f"{node.input[place]}_times_{attribute.name}_{node.output[0]}"
            values = numpy_helper.to_array(stored[node.input[place]])
            graph.initializer.append(
                numpy_helper.from_array((values * attribute.f).astype(values.dtype), name)
            )
            node.input[place] = name
            attribute.f = 1.0
            folded = True
        changed += folded
    if changed:
        drop_unread(graph)
    return changed


def name_captured(graph: onnx.GraphProto) -> int:
    """Put an Identity between each outer tensor and the subgraphs that read it, in place; return how many.

    What rewrites a graph looks at the inputs of its nodes. It would round, fuse or remove a tensor that only
    a branch reads by name, without the branch: the Identity is a reader that everything sees.
    """
    from onnx import helper

    made = {name for node in graph.node for name in node.output if name}
    made |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    aliases: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        names = [name for name in captured(node) if name in made]
        for name in names:
            if name not in aliases:
                aliases[name] = f"{name}_captured"
                nodes.append(
                    helper.make_node("Identity", [name], [aliases[name]], name=f"{aliases[name]}_by_subgraph")
                )
        if names:
            for inner in subgraphs(node):
                _rename_reads(inner, aliases)
        nodes.append(node)
    if aliases:
        replace_nodes(graph, nodes)
    return len(aliases)


def dequantize_weights(model: onnx.ModelProto) -> int:
    """Replace each DequantizeLinear of constants by the floats it makes, in place; return how many.

    Files whose weights are stored as integers, while all activations are floats, become the float graphs
    that they stand for. Graphs that round activations are left as they are.
    """
    from onnx import numpy_helper

    graph = model.graph
    stored = stored_tensors(graph)
    found = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in graph.node) or not all(
        name in stored for node in found for name in node.input if name
    ):
        return 0
    for node in found:
        constants = [numpy_helper.to_array(stored[name]) for name in node.input if name]
        floats = _dequantized(node, *constants)
        graph.initializer.append(numpy_helper.from_array(floats, node.output[0]))
    if found:
        replace_nodes(graph, [node for node in graph.node if node.op_type != "DequantizeLinear"])
        drop_unread(graph)
    return len(found)


def _dequantized(node: onnx.NodeProto, integers: Array, scale: Array, zero: Array | None = None) -> Array:
    """Return (integers - zero) * scale as float32, scales spread along the node's axis or its blocks."""
    import numpy as np

    options = attributes(node)
    axis, block = options.get("axis", 1), options.get("block_size", 0)

    def spread(values: Array) -> Array:
        if values.size == 1:
            return values.reshape(())
        if block:
            return np.repeat(values, block, axis=axis).take(range(integers.shape[axis]), axis=axis)
        shape = [1] * integers.ndim
        shape[axis] = -1
        return values.reshape(shape)

    whole = integers.astype(np.float32)
    if zero is not None:
        whole = whole - spread(zero.astype(np.float32))
    floats: Array = (whole * spread(scale.astype(np.float32))).astype(np.float32)
    return floats


def unshare_quantization(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with a Dequantize for each reader of a weight, and constants for each conversion."""
    import onnx

    copied = copy_of(model)
    graph = copied.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    taken: set[str] = set()
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, index))

    def own_constants(node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            if name in taken and name in stored:
                copy = graph.initializer.add()
                copy.CopyFrom(stored[name])
                copy.name = node.input[index] = f"{name}_of_{node.output[0]}"
            taken.add(name)

    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        own_constants(node)
        if node.op_type == "QuantizeLinear" or node.input[0] not in stored:
            continue
        for number, (reader, index) in enumerate(readers.get(node.output[0], [])[1:], start=2):
            again = onnx.NodeProto()
            again.CopyFrom(node)
            again.name, again.output[0] = f"{node.name}_{number}", f"{node.output[0]}_{number}"
            own_constants(again)
            reader.input[index] = again.output[0]
            nodes.append(again)
    replace_nodes(graph, nodes)
    return copied


def _rename_reads(graph: onnx.GraphProto, aliases: dict[str, str]) -> None:
    """Let a subgraph read ``aliases`` in place of what they stand for, where it has no such tensor itself."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    visible = {name: alias for name, alias in aliases.items() if name not in own}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = visible.get(name, name)
        for inner in subgraphs(node):
            _rename_reads(inner, visible)
    for value in graph.output:
        value.name = visible.get(value.name, value.name)
