"""What a graph says of itself: inputs and outputs as shapes, and fixing the axes that are free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.topology import WEIGHTED_OPERATORS

if TYPE_CHECKING:
    import onnx

Axis = int | str | None


def graph_inputs(model: onnx.ModelProto) -> dict[str, tuple[list[Axis], str]]:
    """Return each input's shape (a name or None for a free axis) and element type by its NumPy name."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return _values([value for value in model.graph.input if value.name not in constants])


def graph_outputs(model: onnx.ModelProto) -> dict[str, tuple[list[Axis], str]]:
    """Return each output's shape and element type, as ``graph_inputs`` does."""
    return _values(model.graph.output)


def fix_input_shape(model: onnx.ModelProto, name: str, shape: Sequence[int]) -> list[str]:
    """Give the input ``name`` this shape, in place, and infer the shapes that follow from it.

    Returns what was free before, as sentences. Shapes that the graph had declared for later tensors with the
    free axes in them are dropped and inferred again.
    """
    import onnx

    value = next(value for value in model.graph.input if value.name == name)
    dimensions = value.type.tensor_type.shape.dim
    freed = []
    for index, (dimension, length) in enumerate(zip(dimensions, shape, strict=True)):
        if dimension.dim_value != length:
            told = dimension.dim_param or "free"
            freed.append(f"Axis {index} of the input {name!r} was {told}; it is fixed to {length}.")
            dimension.Clear()
            dimension.dim_value = length
    if freed:
        del model.graph.value_info[:]
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model)
        model.CopyFrom(inferred)
    return freed


def require_finite_weights(model: onnx.ModelProto) -> None:
    """Refuse layers whose weights hold NaN or infinity, for passes that run no sample and would not notice.

    Raises:
        EngineError: WEIGHTS_NOT_FINITE.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    read = {name for node in model.graph.node if node.op_type in WEIGHTED_OPERATORS for name in node.input}
    bad = [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.name in read
        and tensor.data_type == TensorProto.FLOAT
        and not np.isfinite(numpy_helper.to_array(tensor)).all()
    ]
    if bad:
        named = ", ".join(repr(name) for name in bad[:5])
        raise EngineError(
            "WEIGHTS_NOT_FINITE",
            f"The weights {named} hold NaN or infinity. Push a checkpoint from before its training diverged.",
        )


def rename_input(model: onnx.ModelProto, old: str, new: str) -> None:
    """Call the input ``old`` from now on ``new``, in place. A tensor that has the name already gives way."""
    if new in _tensor_names(model.graph):
        _rename(model.graph, new, f"{new}_inner")
    _rename(model.graph, old, new)


def _tensor_names(graph: onnx.GraphProto) -> set[str]:
    names = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    return names | {output for node in graph.node for output in node.output}


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, old, new)
            for inner in attribute.graphs:
                _rename(inner, old, new)


def drop_metadata(model: onnx.ModelProto) -> None:
    """Remove dates, paths and traces of the exporting program, in place: they make equal graphs differ."""
    model.doc_string = ""
    model.producer_name = model.producer_version = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    for entry in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        entry.doc_string = ""
        del entry.metadata_props[:]


def _values(values: Sequence[onnx.ValueInfoProto]) -> dict[str, tuple[list[Axis], str]]:
    import onnx

    found: dict[str, tuple[list[Axis], str]] = {}
    for value in values:
        tensor = value.type.tensor_type
        shape: list[Axis] = [
            axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or None)
            for axis in tensor.shape.dim
        ]
        try:
            dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except KeyError:
            dtype = "unknown"
        found[value.name] = (shape, dtype)
    return found
