"""The graph as the runtime really runs it, and where in it the tensors of the graph that was given are.

Outputs that are added before optimisation keep operators from being fused and tensors from staying in the
blocked layout (NCHWc) of the fast kernels. So the graph is optimised first and read from afterwards:

1. The extended level fuses operators. Tensors that still exist keep their names; those needed that vanished
   are made outputs, which keeps just them.
2. The layout level renames what it moves to the blocked layout. Every tensor looked for is made an output
   for a moment: the runtime then adds a ReorderOutput from the blocked tensor to the old name, which tells
   one from the other; the reorders are removed again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.editing import captured, copy_of, with_outputs
from boardwright.compiler.engine.graph.session import open_session

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

BLOCKED_DOMAIN = "com.microsoft.nchwc"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is: its name in the optimised graph, and whether its channels lie in blocks there."""

    name: str
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class OptimisedGraph:
    """``places`` maps names of the given graph to where they are; ``block`` is the layout's block size."""

    model: onnx.ModelProto
    places: Mapping[str, Place]
    block: int


def fuse(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """Return ``model`` with its operators fused, and the tensors ``kept`` still in it."""
    outputs = list(model.graph.output)
    fused = _optimise(with_outputs(model, kept), "extended")
    del fused.graph.output[:]
    fused.graph.output.extend(outputs)
    return fused


def lay_out(fused: onnx.ModelProto, wanted: Collection[str]) -> OptimisedGraph:
    """Return ``fused`` in the layout of the fastest kernels, cut down to what the tensors ``wanted`` need."""
    tensors = tensors_of(fused)
    present = [name for name in wanted if name in tensors]
    try:
        model = _optimise(with_outputs(fused, present), "all")
        block = block_size()
    except EngineError:  # the fused graph gives the same figures, more slowly
        model, block = fused, 1
    producers = {output: node for node in model.graph.node for output in node.output}
    places: dict[str, Place] = {}
    given = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    for name in present:
        node = producers.get(name)
        if node is not None and _is_plain_reorder(node) and block > 1:
            places[name] = Place(node.input[0], blocked=True)
        elif node is not None or name in given:
            places[name] = Place(name)
    _keep(model, {place.name for place in places.values()})
    return OptimisedGraph(model, places, block)


def leave_as_is(model: onnx.ModelProto, wanted: Collection[str]) -> OptimisedGraph:
    """Return ``model`` without any optimisation, cut down to what the tensors ``wanted`` need."""
    copy = copy_of(model)
    _keep(copy, set(wanted))
    return OptimisedGraph(copy, {name: Place(name) for name in wanted}, 1)


def tensors_of(model: onnx.ModelProto) -> set[str]:
    """Return the names of all tensors that are computed or given."""
    names = {output for node in model.graph.node for output in node.output if output}
    return names | {value.name for value in model.graph.input}


@cache
def block_size() -> int:
    """Return how many channels lie side by side in this CPU's blocked layout, found by reordering numbers.

    1 for a layout that is not understood: tensors are then read behind the runtime's own ReorderOutput.
    """
    import numpy as np
    import onnx
    from onnx import helper

    channels, width = 64, 2
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=BLOCKED_DOMAIN)
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, channels, 1, width])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(BLOCKED_DOMAIN, 1)]
    session = open_session(
        helper.make_model(graph, opset_imports=opsets, ir_version=8), threads=1, level="none"
    )
    numbers = np.arange(channels * width, dtype=np.float32).reshape(1, channels, 1, width)
    return _block_of(numbers[0, :, 0], session.run(None, {"x": numbers})[0].reshape(-1))


def _block_of(numbers: Array, memory: Array) -> int:
    """Return the size of the blocks in which ``memory`` holds ``numbers`` (C, W), 1 if it does not."""
    channels, width = numbers.shape
    for block in (16, 8, 4):
        blocked = numbers.reshape(channels // block, block, width).transpose(0, 2, 1)
        if memory.shape == (numbers.size,) and bool((blocked.reshape(-1) == memory).all()):
            return block
    return 1


def _optimise(model: onnx.ModelProto, level: str) -> onnx.ModelProto:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        open_session(model, threads=1, level=level, optimized_path=path)
        return onnx.load(path)


def _is_plain_reorder(node: onnx.NodeProto) -> bool:
    """Tell whether a node turns the blocked layout into NCHW (and not, at the same time, into NHWC)."""
    if node.op_type != "ReorderOutput" or node.domain != BLOCKED_DOMAIN:
        return False
    return not any(attribute.name == "channels_last" and attribute.i for attribute in node.attribute)


def _keep(model: onnx.ModelProto, wanted: set[str]) -> None:
    """Drop every node that no tensor in ``wanted`` needs, and all outputs, in place."""
    needed = set(wanted)
    graph = model.graph
    for index in reversed(range(len(graph.node))):
        if needed.intersection(graph.node[index].output):
            needed |= {*graph.node[index].input, *captured(graph.node[index])}
        else:
            del graph.node[index]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    del graph.output[:]
