"""Make a graph fit to be observed and quantized: a recent opset, constants folded, batch norms fused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import EngineError, QuantizationFailed
from boardwright.compiler.engine.graph.affine import fold_affine
from boardwright.compiler.engine.graph.canonical import (
    drop_initializer_inputs,
    fold_gemm_factors,
    name_captured,
)
from boardwright.compiler.engine.graph.editing import copy_of, drop_unread, with_outputs
from boardwright.compiler.engine.graph.leftovers import drop_leftovers
from boardwright.compiler.engine.graph.session import CONVERSIONS, INTEGER_KERNELS, open_session

if TYPE_CHECKING:
    import onnx

MINIMUM_OPSET = 13
"""Per-channel scales exist from opset 13; below it ONNX Runtime writes an invalid model without a word."""

_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

_ELEMENT_TYPES = {"tensor(float)": 1, "tensor(int32)": 6, "tensor(int64)": 7, "tensor(bool)": 9}
"""ONNX's element types by the runtime's names for them, as far as passes ask for them."""


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set that ``model`` imports."""
    return max(
        (entry.version for entry in model.opset_import if entry.domain in _STANDARD_DOMAINS), default=1
    )


def raise_opset(model: onnx.ModelProto, minimum: int = MINIMUM_OPSET) -> onnx.ModelProto:
    """Return ``model`` at opset ``minimum`` or, if it is there already, unchanged.

    Raises:
        QuantizationFailed: OPSET_TOO_OLD, when an operator has no newer form.
    """
    import onnx
    from onnx import version_converter

    version = opset_of(model)
    if version >= minimum:
        return model
    try:
        raised = version_converter.convert_version(model, minimum)
        onnx.checker.check_model(raised, full_check=True)
    except Exception as error:  # the converter raises bare RuntimeError and ConvertError
        raise QuantizationFailed(
            "OPSET_TOO_OLD",
            f"The graph has opset {version}, per-channel INT8 needs {minimum}, and it cannot be converted: "
            f"{str(error).strip().splitlines()[0][:300]}. Export the model again with opset {minimum} or "
            "newer.",
        ) from error
    return raised


def prepare_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its opset raised, constants folded, batch norms fused and every node named.

    Only transformations that any runtime may load are applied (ONNX Runtime's basic level).

    Raises:
        QuantizationFailed: see ``raise_opset``.
        EngineError: RUNTIME_REFUSED, see ``open_session``.
    """
    import onnx

    raised = raise_opset(model)
    if any(
        value.name in {tensor.name for tensor in raised.graph.initializer} for value in raised.graph.input
    ):
        raised = copy_of(raised)
        drop_initializer_inputs(raised)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.onnx"
        open_session(raised, level="basic", optimized_path=path)
        prepared = onnx.load(path)
    _name_shapes(prepared.graph, raised.graph)
    drop_leftovers(prepared.graph)
    fold_gemm_factors(prepared.graph)
    name_captured(prepared.graph)
    fold_affine(prepared.graph)
    name_nodes(prepared.graph)
    return infer_types(prepared)


def _name_shapes(prepared: onnx.GraphProto, given: onnx.GraphProto) -> None:
    """Name the shapes that fusions made after what they shape, in place.

    ONNX Runtime (1.31) asks only nodes whether a name is taken for the shapes around a MatMul and Add that it
    makes a Gemm of: whoever has such a graph optimised again, with more of them in it, gets the same names
    twice and an error.
    """
    known = {name for node in given.node for name in node.output}
    known |= {tensor.name for tensor in given.initializer} | {value.name for value in given.input}
    made = {tensor.name: tensor for tensor in prepared.initializer if tensor.name not in known}
    shaping = [node for node in prepared.node if node.op_type == "Reshape" and node.input[1] in made]
    for node in shaping:
        own = prepared.initializer.add()
        own.CopyFrom(made[node.input[1]])
        own.name = node.input[1] = f"{node.output[0]}_is_shaped"
    if shaping:
        drop_unread(prepared)


def told_quantized(model: onnx.ModelProto) -> str:
    """Return a sentence on what to do with a graph that somebody quantized before; empty if nobody did."""
    rounded = CONVERSIONS | INTEGER_KERNELS
    found = next((node.op_type for node in model.graph.node if node.op_type in rounded), None)
    if found is None:
        return ""
    return (
        f"The graph holds integers already (operator {found}): start from the float32 checkpoint. As it is "
        "it can be judged and built, by recipe baseline."
    )


def require_floats(model: onnx.ModelProto) -> None:
    """Refuse a graph that somebody quantized before.

    Raises:
        QuantizationFailed: ALREADY_QUANTIZED.
    """
    if told := told_quantized(model):
        raise QuantizationFailed("ALREADY_QUANTIZED", told)


def infer_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with the type and shape of every tensor that ONNX or the runtime can tell.

    ONNX infers nothing behind an operator that is not its own (those of ``com.microsoft``, say); the runtime
    knows what it will run.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    known = {
        value.name
        for value in [*graph.value_info, *graph.output, *graph.input]
        if value.type.tensor_type.elem_type
    }
    made = [name for node in graph.node for name in node.output if name]
    unknown = [name for name in dict.fromkeys(made) if name not in known]
    if not unknown or all(node.domain in _STANDARD_DOMAINS for node in graph.node):
        return inferred
    try:
        session = open_session(with_outputs(inferred, unknown), level="none")
    except EngineError:
        return inferred
    for value in session.get_outputs():
        element = _ELEMENT_TYPES.get(value.type)
        if value.name in unknown and element is not None:
            shape = value.shape or None  # the runtime says [] of a scalar and of a rank it does not know
            graph.value_info.append(onnx.helper.make_tensor_value_info(value.name, element, shape))
    return inferred


def tell_output_shapes(model: onnx.ModelProto) -> None:
    """Give outputs whose shape is not all known the one that the runtime finds, in place, where it finds one.

    Exporters that leave the batch free compute later shapes from it, in nodes that ONNX's own inference does
    not follow; the runtime folds them once the input's shape is fixed.

    Raises:
        EngineError: RUNTIME_REFUSED, see ``open_session``.
    """
    import onnx

    unknown = {
        value.name: value
        for value in model.graph.output
        if not value.type.tensor_type.HasField("shape")
        or not all(axis.HasField("dim_value") for axis in value.type.tensor_type.shape.dim)
    }
    if not unknown:
        return
    for found in open_session(model, level="basic").get_outputs():
        if found.name in unknown and found.shape:
            value = unknown[found.name]
            element = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(found.name, element, found.shape))


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node without a name, or with one that is taken, a name of its own, in place."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)
