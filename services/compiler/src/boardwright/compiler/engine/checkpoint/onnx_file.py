"""ONNX files: external data, claimed sizes and damage are found before a runtime sees the graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import CheckpointRefused, CheckpointTooLarge, CheckpointUnreadable
from boardwright.compiler.engine.graph.editing import captured, sort_nodes
from boardwright.compiler.engine.limits import DEFAULT_LIMITS, Limits, check_file_size

if TYPE_CHECKING:
    import onnx

_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_UNKNOWN_OPERATOR = re.compile(r"No Op registered for (\S+) with domain_version of (\d+)")


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A checked graph and what is worth knowing about it.

    ``non_finite`` names the weights that hold NaN or infinity.
    """

    model: onnx.ModelProto
    opset: int
    non_finite: tuple[str, ...]


def load_onnx(path: Path, limits: Limits = DEFAULT_LIMITS) -> OnnxFile:
    """Read an ONNX file whose weights all lie inside of it.

    Raises:
        CheckpointTooLarge: the file, or what one of its tensors claims, exceeds the limits.
        CheckpointRefused: it wants data from other files.
        CheckpointUnreadable: it is truncated, damaged, or no valid ONNX graph.
    """
    import onnx
    from google.protobuf.message import DecodeError

    check_file_size(path, limits.max_onnx_bytes)
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError, RecursionError, UnicodeDecodeError) as error:
        raise _damaged(path.name, error) from error
    if not model.HasField("graph") or not model.graph.node or not model.graph.output:
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE",
            f"{path.name} holds no graph with nodes and outputs: it is truncated or no ONNX file.",
        )
    tensors = list(all_tensors(model))
    for tensor in tensors:
        _check_tensor(tensor, path, limits)
    _put_in_order(model.graph)
    _check_graph(model, path, limits)
    opset = next((entry.version for entry in model.opset_import if entry.domain in _STANDARD_DOMAINS), 0)
    return OnnxFile(model, opset, tuple(tensor.name for tensor in tensors if _is_non_finite(tensor)))


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor stored in the model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield attribute.sparse_tensor.values
            yield attribute.sparse_tensor.indices
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def _check_tensor(tensor: onnx.TensorProto, path: Path, limits: Limits) -> None:
    import onnx

    name = tensor.name or "a constant"
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
        raise CheckpointRefused(
            "CHECKPOINT_EXTERNAL_DATA",
            f"{path.name} keeps the weights {name!r} in another file ({location!r}), and nothing outside of "
            "the checkpoint is read. Write one file, torch.onnx.export(…, external_data=False), or make one "
            "of both, onnx.save(onnx.load(path), new_path, save_as_external_data=False).",
        )
    if any(length < 0 for length in tensor.dims):
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE", f"{path.name}: the tensor {name!r} has a negative dimension."
        )
    elements = 1
    for length in tensor.dims:
        elements *= length
    bits = _element_bits(tensor.data_type)
    if bits == 0:
        return
    claimed = (elements * bits + 7) // 8
    if claimed > limits.max_tensor_bytes:
        raise CheckpointTooLarge(
            "CHECKPOINT_TOO_LARGE",
            f"{path.name}: the tensor {name!r} claims {claimed:,} bytes (shape {list(tensor.dims)}); at most "
            f"{limits.max_tensor_bytes:,} are accepted.",
        )
    if tensor.HasField("raw_data") and len(tensor.raw_data) != claimed:
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE",
            f"{path.name}: the tensor {name!r} claims {claimed:,} bytes and holds {len(tensor.raw_data):,}. "
            "The file is damaged: export it again.",
        )


def _element_bits(data_type: int) -> int:
    """Return the bits of one element as ONNX stores it, 0 for strings and unknown types."""
    import onnx

    types = onnx.TensorProto
    if data_type in (types.INT4, types.UINT4, types.FLOAT4E2M1):
        return 4
    if data_type == types.STRING:
        return 0
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8
    except KeyError:
        return 0


def _put_in_order(graph: onnx.GraphProto) -> None:
    """Sort the nodes where some come before what they read: converters write such files, runtimes sort."""
    from graphlib import CycleError

    made = {name for node in graph.node for name in node.output if name}
    seen: set[str] = set()
    for node in graph.node:
        if any(name in made and name not in seen for name in (*node.input, *captured(node))):
            break
        seen.update(node.output)
    else:
        return
    with suppress(CycleError):  # the checker tells
        sort_nodes(graph)


def _check_graph(model: onnx.ModelProto, path: Path, limits: Limits) -> None:
    import onnx

    foreign = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for node in model.graph.node
            if node.domain not in _KNOWN_DOMAINS
            and (node.domain, node.op_type) not in {(f.domain, f.name) for f in model.functions}
        }
    )
    if foreign:
        raise CheckpointUnreadable(
            "CHECKPOINT_UNKNOWN_OPERATOR",
            f"{path.name} uses operators that no runtime here has: {', '.join(foreign[:5])}. "
            "Export the model without custom operators.",
        )
    for value in model.graph.input:
        elements = 1
        for dimension in value.type.tensor_type.shape.dim:
            elements *= max(dimension.dim_value, 1)
        if elements > limits.max_input_elements:
            raise CheckpointTooLarge(
                "CHECKPOINT_TOO_LARGE",
                f"{path.name}: the input {value.name!r} claims {elements:,} elements; "
                f"at most {limits.max_input_elements:,} are accepted.",
            )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        unknown = _UNKNOWN_OPERATOR.search(str(error))
        if unknown:
            raise CheckpointUnreadable(
                "CHECKPOINT_UNKNOWN_OPERATOR",
                f"{path.name} uses the operator {unknown[1]}, which opset {unknown[2]} does not have. Export "
                "the model with standard operators, or with the opset that has it.",
            ) from error
        raise _damaged(path.name, error) from error
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise _damaged(path.name, error) from error


def _is_non_finite(tensor: onnx.TensorProto) -> bool:
    import numpy as np
    import onnx

    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
        return False
    try:
        return not bool(np.isfinite(onnx.numpy_helper.to_array(tensor)).all())
    except ValueError:
        return False


def _damaged(name: str, error: Exception) -> CheckpointUnreadable:
    text = str(error).strip()
    detail = text.splitlines()[0][:300] if text else type(error).__name__
    return CheckpointUnreadable(
        "CHECKPOINT_UNREADABLE",
        f"{name} is truncated, damaged or no valid ONNX graph: {detail}. Export it again.",
    )
