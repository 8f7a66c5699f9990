"""Unstructured pruning: single weights become zero, by magnitude. The graph keeps its shape and its speed.

No kernel of the runtimes here skips zeros, so a sparse graph takes as long as a dense one; what shrinks is
the file once it is compressed. The one exception is N:M sparsity (2 of 4 kept) on NVIDIA GPUs with sparse
tensor cores, through TensorRT.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.editing import attributes
from boardwright.compiler.engine.graph.inspect import require_finite_weights
from boardwright.compiler.engine.graph.topology import Topology

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

SCOPES = ("uniform", "global")
_PATTERN = re.compile(r"([1-9]\d*):([1-9]\d*)")
_SPEED_NOTE = (
    "The graph runs as fast as before: no kernel of these runtimes skips zeros. Prune channels to gain time."
)
_TENSOR_CORE_NOTE = (
    "Only NVIDIA GPUs with sparse tensor cores gain from 2:4 weights, through a TensorRT built for them: "
    "measure on the board."
)


@dataclass(frozen=True, slots=True, eq=False)
class SparseModel:
    """What ``sparsify`` made. Sizes in bytes; ``layers`` maps each changed layer to its fraction of zeros."""

    model: onnx.ModelProto
    sparsity: float
    layers: Mapping[str, float]
    size_bytes: int
    compressed_before_bytes: int
    compressed_bytes: int
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            "sparsity": self.sparsity,
            "layers": dict(self.layers),
            "size_bytes": self.size_bytes,
            "compressed_before_bytes": self.compressed_before_bytes,
            "compressed_bytes": self.compressed_bytes,
            "notes": list(self.notes),
        }


def sparsify(
    model: onnx.ModelProto, amount: float, *, pattern: str = "", scope: str = "global"
) -> SparseModel:
    """Set the smallest weights of ``model``'s layers to zero.

    ``amount`` is the fraction of zeros, over each layer (``uniform``) or over all (``global``). ``pattern``
    ``2:4`` keeps instead the 2 largest of every 4 weights along the input channels.

    Raises:
        EngineError: PRUNING_OPTIONS_UNFIT; NOTHING_TO_PRUNE; WEIGHTS_NOT_FINITE.
    """
    import onnx
    from onnx import numpy_helper

    kept_of = _read_pattern(pattern)
    if scope not in SCOPES or not 0 < amount < 1:
        raise EngineError(
            "PRUNING_OPTIONS_UNFIT",
            f"Weights are pruned with scope {' or '.join(SCOPES)} and an amount above 0 and below 1, not "
            f"{scope!r} and {amount}.",
        )
    sparse = onnx.ModelProto()
    sparse.CopyFrom(model)
    weights = _layer_weights(sparse)
    if not weights:
        raise EngineError(
            "NOTHING_TO_PRUNE", "The graph has no Conv, Gemm or MatMul with float weights of its own."
        )
    require_finite_weights(sparse)
    threshold = _global_threshold(weights, amount) if scope == "global" else None
    layers, skipped, zeros, total = {}, [], 0, 0
    for name, (tensor, axis) in weights.items():
        value = numpy_helper.to_array(tensor)
        if kept_of is not None and value.shape[axis] % kept_of[1]:
            skipped.append(name)
            continue
        thinned = _thin(value, axis, kept_of, threshold, amount)
        tensor.CopyFrom(numpy_helper.from_array(thinned, tensor.name))
        layers[name] = float((thinned == 0).mean())
        zeros, total = zeros + int((thinned == 0).sum()), total + thinned.size
    if not layers:
        raise EngineError(
            "NOTHING_TO_PRUNE", f"No layer has a number of input channels that {pattern!r} divides."
        )
    notes = [_SPEED_NOTE]
    if kept_of is not None:
        notes.append(_TENSOR_CORE_NOTE)
    if skipped:
        notes.append(f"{len(skipped)} layers kept all weights: their input channels do not divide by the M.")
    return SparseModel(
        sparse,
        zeros / total,
        layers,
        sparse.ByteSize(),
        _compressed(model),
        _compressed(sparse),
        tuple(notes),
    )


def _read_pattern(pattern: str) -> tuple[int, int] | None:
    if not pattern:
        return None
    found = _PATTERN.fullmatch(pattern)
    if found is None or int(found[1]) >= int(found[2]):
        raise EngineError(
            "PRUNING_OPTIONS_UNFIT", f"The pattern {pattern!r} is none like 2:4 (2 of every 4 weights stay)."
        )
    return int(found[1]), int(found[2])


def _layer_weights(model: onnx.ModelProto) -> dict[str, tuple[onnx.TensorProto, int]]:
    """Return each layer's stored weight and the axis of its input channels, by node name."""
    topology = Topology(model.graph)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found, seen = {}, set()
    for index, node in enumerate(topology.nodes):
        if node.op_type not in ("Conv", "Gemm", "MatMul") or not topology.is_weighted(index):
            continue
        tensor = stored.get(node.input[1])
        if tensor is None or tensor.name in seen or len(tensor.dims) < 2:
            continue
        seen.add(tensor.name)
        by_columns = node.op_type == "Conv" or (node.op_type == "Gemm" and attributes(node).get("transB", 0))
        found[node.name or node.output[0]] = (tensor, 1 if by_columns else len(tensor.dims) - 2)
    return found


def _global_threshold(weights: Mapping[str, tuple[onnx.TensorProto, int]], amount: float) -> float:
    import numpy as np
    from onnx import numpy_helper

    every = np.concatenate([np.abs(numpy_helper.to_array(tensor)).ravel() for tensor, _ in weights.values()])
    return float(np.partition(every, int(amount * every.size))[int(amount * every.size)])


def _thin(
    value: Array, axis: int, kept_of: tuple[int, int] | None, threshold: float | None, amount: float
) -> Array:
    import numpy as np

    if kept_of is None:
        size = np.abs(value)
        own = int(amount * value.size)
        limit = threshold if threshold is not None else float(np.partition(size.ravel(), own)[own])
        result: Array = np.where(size < limit, np.zeros_like(value), value)
        return result
    kept, of = kept_of
    turned = np.moveaxis(value, axis, -1)
    grouped = np.array(turned).reshape(-1, of)
    smallest = np.argsort(np.abs(grouped), axis=1, kind="stable")[:, : of - kept]
    np.put_along_axis(grouped, smallest, 0, axis=1)
    result = np.ascontiguousarray(np.moveaxis(grouped.reshape(turned.shape), -1, axis))
    return result


def _compressed(model: onnx.ModelProto) -> int:
    return len(zlib.compress(model.SerializeToString(deterministic=True), 6))
