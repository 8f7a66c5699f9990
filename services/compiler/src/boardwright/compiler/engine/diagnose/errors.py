"""Where on the way through the graph a variant's activations begin to differ from the baseline's.

The tensors that both graphs have by name are compared over a few samples, as they are once rounded: signal
over error, in decibels. An ordinary 8-bit layer keeps 20 dB and more; the tensor where it falls is where to
look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import dequantized_names, with_outputs
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.sqnr import MOST_DB, SqnrMeter

if TYPE_CHECKING:
    import numpy as np
    import onnx


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
    """Return the error of every float tensor that both graphs have in one shape, in the variant's order.

    ``feeds`` are preprocessed inputs; memory holds the tensors of one at a time.
    """
    import onnx

    base = onnx.shape_inference.infer_shapes(baseline)
    known = {value.name: value for value in [*base.graph.value_info, *base.graph.output]}
    floats = {
        name for name, value in known.items() if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    outputs = [value.name for value in variant.graph.output]
    makers = {output: node for node in variant.graph.node for output in node.output}
    names = [name for name in makers if name in floats]
    restored = dequantized_names(variant)
    theirs = [restored.get(name, name) for name in names]
    reference = open_session(with_outputs(baseline, names), level="basic")
    judged = open_session(with_outputs(variant, theirs), level="basic")
    meter = SqnrMeter()
    for feed in feeds:
        exact, found = reference.run(names, dict(feed)), judged.run(theirs, dict(feed))
        meter.add(dict(zip(names, found, strict=True)), dict(zip(names, exact, strict=True)))
    return tuple(
        TensorError(name, makers[name].name, makers[name].op_type, sqnr_db, name in outputs)
        for name, sqnr_db in meter.sqnr_db().items()
    )


def steepest_fall(errors: tuple[TensorError, ...]) -> tuple[TensorError, float] | None:
    """Return the tensor at which the error grows most beside the worst before it, and the decibels."""
    worst_before = MOST_DB
    found: tuple[TensorError, float] | None = None
    for error in errors:
        fall = min(worst_before, 60.0) - error.sqnr_db
        if fall > 0 and (found is None or fall > found[1]):
            found = (error, fall)
        worst_before = min(worst_before, error.sqnr_db)
    return found
