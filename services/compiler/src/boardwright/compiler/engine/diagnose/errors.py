"""Where on the way through the graph a variant's activations begin to differ from the baseline's.

The tensors that both graphs have by name are compared over a few samples, as they are once rounded: signal
over error, in decibels. An ordinary 8-bit layer keeps 20 dB and more; the tensor where it falls is where to
look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import with_outputs
from boardwright.compiler.engine.graph.session import open_session

if TYPE_CHECKING:
    import numpy as np
    import onnx

_PERFECT_DB = 200.0


@dataclass(frozen=True, slots=True)
class TensorError:
    """One tensor of both graphs: the node that makes it, and its signal over error in decibels."""

    tensor: str
    node: str
    operator: str
    sqnr_db: float
    is_output: bool


def tensor_errors(
    baseline: onnx.ModelProto, variant: onnx.ModelProto, feeds: Iterable[Mapping[str, np.ndarray[Any, Any]]]
) -> tuple[TensorError, ...]:
    """Return the error of every float tensor that both graphs have, in the variant's order.

    ``feeds`` are preprocessed inputs; memory holds the tensors of one at a time.
    """
    import numpy as np
    import onnx

    base = onnx.shape_inference.infer_shapes(baseline)
    known = {value.name: value for value in [*base.graph.value_info, *base.graph.output]}
    floats = {
        name for name, value in known.items() if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    outputs = [value.name for value in variant.graph.output]
    makers = {output: node for node in variant.graph.node for output in node.output}
    names = [name for name in makers if name in floats]
    restored = _restored(variant)
    theirs = [restored.get(name, name) for name in names]
    reference = open_session(with_outputs(baseline, names), level="basic")
    judged = open_session(with_outputs(variant, theirs), level="basic")
    signal, noise = np.zeros(len(names)), np.zeros(len(names))
    for feed in feeds:
        exact, found = reference.run(names, dict(feed)), judged.run(theirs, dict(feed))
        for index, (left, right) in enumerate(zip(exact, found, strict=True)):
            if left.shape == right.shape:
                same = np.isinf(left) & (left == right)  # masks are infinite in both
                left, right = np.where(same, 0, left), np.where(same, 0, right)
                signal[index] += float(np.square(left, dtype=np.float64).sum())
                noise[index] += float(np.square(left - right, dtype=np.float64).sum())
    return tuple(
        TensorError(
            name,
            makers[name].name,
            makers[name].op_type,
            _decibels(float(signal[index]), float(noise[index])),
            name in outputs,
        )
        for index, name in enumerate(names)
    )


def steepest_fall(errors: tuple[TensorError, ...]) -> tuple[TensorError, float] | None:
    """Return the tensor at which the error grows most beside the worst before it, and the decibels."""
    worst_before = _PERFECT_DB
    found: tuple[TensorError, float] | None = None
    for error in errors:
        fall = min(worst_before, 60.0) - error.sqnr_db
        if fall > 0 and (found is None or fall > found[1]):
            found = (error, fall)
        worst_before = min(worst_before, error.sqnr_db)
    return found


def _decibels(signal: float, noise: float) -> float:
    if not math.isfinite(noise):
        return -_PERFECT_DB
    if noise == 0:
        return _PERFECT_DB
    return 10 * math.log10(signal / noise) if signal > 0 else -_PERFECT_DB


def _restored(model: onnx.ModelProto) -> dict[str, str]:
    """Return what each rounded tensor is called behind its Dequantize: in front of it, it may be scaled."""
    rounded = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return {
        rounded[node.input[0]]: node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in rounded
    }
