"""Layers by themselves: how each stores its weight, what it reads, and how many multiplications it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes, shapes_of
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.profiling.costs import multiply_accumulates

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class LayerForm:
    """How a Conv, Gemm or MatMul stores its weight, and the geometry of what it reads.

    ``turned`` weights are (I, O), others (O, I / groups, kernel...). ``groups`` is 1 but for grouped Convs.
    ``strides``, ``dilations`` and ``pads`` (all befores, then all afters) are empty for matrices. Where
    ``auto_padded``, what is padded follows from the input's size, and ``pads`` say nothing.
    """

    operator: str
    turned: bool
    groups: int = 1
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    auto_padded: bool = False

    @property
    def padded(self) -> bool:
        """Whether zeros may lie around the input."""
        return self.auto_padded or any(self.pads)

    def rows(self, stored: Array) -> Array:
        """Return the stored weight as (O, I / groups, kernel...)."""
        return stored.T if self.turned else stored

    def stored(self, rows: Array) -> Array:
        """Return (O, ...) as the graph stores it."""
        return rows.T if self.turned else rows

    def grouped(self, stored: Array) -> Array:
        """Return the stored weight as (groups, O / groups, I / groups, kernel)."""
        rows = self.rows(stored)
        return rows.reshape(self.groups, rows.shape[0] // self.groups, rows.shape[1], -1)


def layer_form(node: onnx.NodeProto, rank: int) -> LayerForm | None:
    """Return the form of a layer whose weight has ``rank`` axes.

    None for other operators, products of batches, and Gemms with factors or over a transposed activation.
    """
    options = attributes(node)
    if node.op_type == "MatMul":
        return LayerForm("MatMul", True) if rank == 2 else None
    if node.op_type == "Gemm":
        plain = options.get("alpha", 1.0) == 1.0 and options.get("beta", 1.0) == 1.0
        return LayerForm("Gemm", not options.get("transB")) if plain and not options.get("transA") else None
    if node.op_type != "Conv":
        return None
    spatial = rank - 2
    given = options.get("auto_pad", b"NOTSET")
    pads = (0,) * 2 * spatial if given == b"VALID" else tuple(options.get("pads", (0,) * 2 * spatial))
    return LayerForm(
        "Conv",
        False,
        int(options.get("group", 1)),
        tuple(options.get("strides", (1,) * spatial)),
        tuple(options.get("dilations", (1,) * spatial)),
        pads,
        auto_padded=given not in (b"NOTSET", b"VALID"),
    )


def output_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """Return which axis of a layer's weight of ``rank`` axes counts its outputs; None for other operators."""
    if node.op_type == "Gemm":
        return 0 if attributes(node).get("transB") else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(node.op_type)


def layer_macs(model: onnx.ModelProto, topology: Topology) -> dict[int, int]:
    """Return the multiply-accumulates of each layer per run, by its node; free axes count as 1."""
    shapes = shapes_of(model.graph) | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}

    def shape(names: Any, place: int) -> tuple[int, ...]:
        found = shapes.get(names[place], ()) if place < len(names) else ()
        return tuple(max(length, 1) for length in found)

    found = {}
    for index in sorted(topology.layers):
        node = topology.nodes[index]
        read, weight, made = shape(node.input, 0), shape(node.input, 1), shape(node.output, 0)
        found[index] = multiply_accumulates(node.op_type, read, weight, made)
    return found
