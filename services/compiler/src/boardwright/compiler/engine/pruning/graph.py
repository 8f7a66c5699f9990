"""The graph that pruning works on: constants folded, batch norms kept, every shape known."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.editing import replace_nodes, with_outputs
from boardwright.compiler.engine.graph.prepare import name_nodes, raise_opset, require_floats
from boardwright.compiler.engine.graph.session import open_session

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_KEPT_APART = ("ConvBNFusion", "ConvMulFusion", "ConvAddFusion", "MatMulBNFusion", "MatMulAddFusion")
"""Fusions that would hide batch norms' scales, or turn layers into others."""


def prepare_for_pruning(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` at opset 13 or newer with constants folded into initializers and nodes named.

    Raises:
        EngineError: ALREADY_QUANTIZED, WEIGHTS_NOT_FLOAT32, RUNTIME_REFUSED.
        QuantizationFailed: OPSET_TOO_OLD.
    """
    import onnx

    _refuse_unfit(model)
    raised = raise_opset(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.onnx"
        open_session(raised, level="basic", optimized_path=path, disabled=_KEPT_APART)
        prepared = onnx.load(path)
    _constants_to_initializers(prepared.graph)
    name_nodes(prepared.graph)
    return onnx.shape_inference.infer_shapes(prepared, data_prop=True)


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the top-level graph; what inference cannot tell is run once."""
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            continue
        lengths = value.type.tensor_type.shape.dim
        if all(length.HasField("dim_value") for length in lengths):
            shapes.setdefault(value.name, tuple(length.dim_value for length in lengths))
    missing = [name for node in graph.node for name in node.output if name and name not in shapes]
    if missing:
        shapes |= _run_for_shapes(model, missing)
    return shapes


def noise_feed(model: onnx.ModelProto) -> dict[str, Array]:
    """Return noise between 0 and 1 (zeros for integers) of the graph's input shapes; free axes are 1 long."""
    import numpy as np
    import onnx

    rng = np.random.default_rng(0)
    constants = {tensor.name for tensor in model.graph.initializer}
    feed = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        shape = [max(1, axis.dim_value) for axis in value.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        is_float = np.issubdtype(dtype, np.floating)
        feed[value.name] = rng.random(shape).astype(dtype) if is_float else np.zeros(shape, dtype)
    return feed


def _run_for_shapes(model: onnx.ModelProto, names: list[str]) -> dict[str, tuple[int, ...]]:
    results = open_session(with_outputs(model, names), level="none").run(names, noise_feed(model))
    return {
        name: tuple(result.shape)
        for name, result in zip(names, results, strict=True)
        if hasattr(result, "shape")
    }


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    import numpy as np
    import onnx

    kept = []
    for node in graph.node:
        value = node.attribute[0] if node.op_type == "Constant" and len(node.attribute) == 1 else None
        if value is None:
            kept.append(node)
        elif value.name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        elif value.name in ("value_float", "value_floats", "value_int", "value_ints"):
            dtype = np.float32 if "float" in value.name else np.int64
            array = np.array(onnx.helper.get_attribute_value(value), dtype)
            graph.initializer.append(onnx.numpy_helper.from_array(array, node.output[0]))
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def _refuse_unfit(model: onnx.ModelProto) -> None:
    import onnx

    require_floats(model)
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    for tensor in model.graph.initializer:
        if tensor.data_type in halves and len(tensor.dims) > 1:
            raise EngineError(
                "WEIGHTS_NOT_FLOAT32",
                f"The weight {tensor.name!r} is no float32. Export the checkpoint in float32 to prune it.",
            )
