"""The grid that a layer's weights are rounded to: the one that the quantizer will choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.power_of_two import least_error_steps
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_FULL, _REDUCED = 127, 64


def is_symmetric_int8(scheme: QuantizationScheme) -> bool:
    """Tell whether weights become symmetric INT8: the grid that this package knows."""
    return scheme.weight_type == "int8" and scheme.weight_symmetric


def weight_bound(scheme: QuantizationScheme) -> int:
    """Return the largest integer that a weight becomes."""
    return _REDUCED if scheme.reduce_range else _FULL


def weight_steps(weight: Array, scheme: QuantizationScheme) -> Array:
    """Return the distance between two grid points: float64 of shape (O, 1, ...), or one for all."""
    import numpy as np

    axes = tuple(range(1, weight.ndim)) if scheme.per_channel else None
    if scheme.power_of_two:
        return least_error_steps(weight, axes, weight_bound(scheme))
    largest = np.abs(weight).max(axis=axes, keepdims=True).astype(np.float64)
    steps: Array = np.where(largest > 0, largest / weight_bound(scheme), 1.0)
    return steps


def round_weight(weight: Array, scheme: QuantizationScheme) -> Array:
    """Return ``weight`` (O, ...) as symmetric INT8 keeps it: float64, one scale per O or one for all."""
    import numpy as np

    steps, bound = weight_steps(weight, scheme), weight_bound(scheme)
    rounded: Array = np.clip(np.rint(weight / steps), -bound, bound) * steps
    return rounded


@dataclass(frozen=True, slots=True)
class LayerForm:
    """How a Conv, Gemm or MatMul stores its weight, and the geometry of what it reads.

    ``turned`` weights are (I, O). ``groups`` 1 but for grouped Convs. ``kernel`` empty for matrices.
    """

    operator: str
    turned: bool
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()

    def rows(self, stored: Array) -> Array:
        """Return the stored weight as (O, I / groups, kernel...)."""
        return stored.T if self.turned else stored

    def stored(self, rows: Array) -> Array:
        """Return (O, ...) as the graph stores it."""
        return rows.T if self.turned else rows


def layer_form(node: onnx.NodeProto, rank: int) -> LayerForm | None:
    """Return the form of a layer whose weight has ``rank`` axes; None for those that are not known here."""
    import onnx

    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    if node.op_type == "MatMul":
        return LayerForm("MatMul", True) if rank == 2 else None
    if node.op_type == "Gemm":
        plain = attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0
        if not plain or attributes.get("transA"):
            return None
        return LayerForm("Gemm", not attributes.get("transB"))
    if node.op_type != "Conv" or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    spatial = rank - 2
    return LayerForm(
        "Conv",
        False,
        int(attributes.get("group", 1)),
        tuple(attributes.get("kernel_shape", ())),
        tuple(attributes.get("strides", (1,) * spatial)),
        tuple(attributes.get("dilations", (1,) * spatial)),
        tuple(attributes.get("pads", (0,) * 2 * spatial)),
    )
