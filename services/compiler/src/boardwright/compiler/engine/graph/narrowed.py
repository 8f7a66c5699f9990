"""Judge a float16 graph by float16's arithmetic: ONNX Runtime's CPU provider computes it in float32.

It has no float16 kernels on x86, casts the weights and takes out the casts between layers, so that nothing
but the weights is rounded: its answers are better than any board's. ``rounding`` makes the float32 graph that
rounds every tensor to float16's eleven bits where the float16 graph holds one. Sums inside of a layer stay
float32, as tensor cores have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.editing import copy_of
from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS
from boardwright.compiler.engine.graph.widen import to_float32

if TYPE_CHECKING:
    import onnx

_SPLIT = 2.0**13 + 1
"""c = x·(2^13 + 1), c - (c - x) is x rounded to 24 - 13 bits, to nearest even (Dekker, "A floating-point
technique for extending the available precision", 1971): arithmetic that no optimiser takes out."""


def holds_float16(model: onnx.ModelProto) -> bool:
    """Tell whether the graph has weights or inputs in float16."""
    import onnx

    half = onnx.TensorProto.FLOAT16
    return any(tensor.data_type == half for tensor in model.graph.initializer) or any(
        value.type.tensor_type.elem_type == half for value in model.graph.input
    )


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model``, which holds float16, in float32 with float16's rounding. Infinities are not made."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    half = onnx.TensorProto.FLOAT16
    typed = onnx.shape_inference.infer_shapes(model)
    halves = {
        value.name
        for value in [*typed.graph.input, *typed.graph.output, *typed.graph.value_info]
        if value.type.tensor_type.elem_type == half
    }
    wide = copy_of(model)
    to_float32(wide)
    graph = wide.graph
    graph.initializer.append(numpy_helper.from_array(np.float32(_SPLIT), "float16_split"))
    nodes = []
    renamed: dict[str, str] = {}

    def round_off(name: str, exact: str) -> None:
        nodes.append(helper.make_node("Mul", [exact, "float16_split"], [f"{name}_above"]))
        nodes.append(helper.make_node("Sub", [f"{name}_above", exact], [f"{name}_rest"]))
        nodes.append(helper.make_node("Sub", [f"{name}_above", f"{name}_rest"], [name]))

    for value in graph.input:
        if value.name in halves:
            renamed[value.name] = f"{value.name}_float16"
            round_off(renamed[value.name], value.name)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        made = [name for name in node.output if name in halves]
        nodes.append(node)
        if node.op_type in MOVEMENT_OPERATORS and node.op_type != "Cast":
            continue
        for name in made:
            place = list(node.output).index(name)
            node.output[place] = f"{name}_exact"
            round_off(name, node.output[place])
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return wide
