"""What can be removed: units (channels that go together) in cells (units alike), and what they cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes
from boardwright.compiler.engine.pruning.dependencies import Dependencies

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_FLOAT_SIZES = {1: 4, 10: 2, 11: 8, 16: 2}
"""Bytes of a number by ONNX's element type, for the types that parameters have."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """Units that touch the same tensors: half of a C2f's first convolution, a residual stream, heads.

    ``units`` holds their labels, ``sites`` indices into ``Dependencies.sites``. ``width`` is how many rows of
    the producing layer one unit is (1 for a channel, three heads' worth of rows for an attention head).
    ``layers`` names the nodes that make the ``channels`` (their number in all units), ``key`` the cell
    itself, the same in a graph that was pruned before.
    """

    units: Array
    sites: tuple[int, ...]
    width: int
    layers: tuple[str, ...]
    channels: int
    key: str

    @property
    def name(self) -> str:
        """The first layer's name stands for the cell."""
        return self.layers[0]


@dataclass(frozen=True, slots=True)
class Cost:
    """Numbers that a graph stores, bytes they take, and multiply-accumulates for one sample."""

    parameters: int
    macs: int
    size_bytes: int = 0

    def describe(self) -> dict[str, int]:
        """Return the cost as JSON-able values."""
        return {"parameters": self.parameters, "macs": self.macs, "size_bytes": self.size_bytes}


def find_cells(found: Dependencies) -> tuple[Cell, ...]:
    """Return the cells with at least two units, in the graph's order."""
    import numpy as np

    touched: dict[int, list[int]] = {}
    for number, site in enumerate(found.sites):
        for label in np.unique(site.labels[site.labels >= 0]).tolist():
            touched.setdefault(label, []).append(number)
    grouped: dict[tuple[int, ...], list[int]] = {}
    for label, sites in sorted(touched.items()):
        grouped.setdefault(tuple(sites), []).append(label)
    cells: list[Cell] = []
    seen: Counter[tuple[str, ...]] = Counter()
    for numbers, units in grouped.items():
        makers = [found.sites[number] for number in numbers if found.sites[number].role == "out"]
        if len(units) < 2 or not makers:
            continue
        rows = int(np.isin(makers[0].labels, units).sum())
        names = dict.fromkeys(found.model.graph.node[maker.node].name for maker in makers)
        layers = tuple(names)
        key = f"{' '.join(layers)} {seen[layers]}"
        seen[layers] += 1
        cells.append(Cell(np.array(units), numbers, rows // len(units), layers, rows, key))
    return tuple(cells)


def layer_widths(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many channels each layer makes, by node name."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    widths = {}
    for node in model.graph.node:
        weight = shapes.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or len(weight) < 2:
            continue
        if node.op_type == "Conv":
            widths[node.name] = weight[0]
        elif node.op_type == "ConvTranspose":
            widths[node.name] = weight[1] * attributes(node).get("group", 1)
        elif node.op_type == "Gemm":
            widths[node.name] = weight[0 if attributes(node).get("transB", 0) else 1]
        elif node.op_type == "MatMul":
            widths[node.name] = weight[-1]
    return widths


class CostModel:
    """The cost of the graph as a function of which units are gone, without building the graph."""

    def __init__(self, found: Dependencies) -> None:
        by_tensor: dict[str, dict[int, Array]] = {}
        by_node: dict[int, dict[int, Array]] = {}
        size = 0
        for site in found.sites:
            by_tensor.setdefault(site.tensor, {}).setdefault(site.axis, site.labels)
            if site.slot == 1:
                by_node.setdefault(site.node, {})[site.axis] = site.labels
            size = max(size, int(site.labels.max(initial=-1)) + 1)
        self.label_count = size
        stored = {tensor.name for tensor in found.model.graph.initializer}
        self._stored = [
            (tuple(tensor.dims), by_tensor.get(tensor.name, {}), _FLOAT_SIZES.get(tensor.data_type, 0))
            for tensor in found.model.graph.initializer
        ]
        self._layers = [
            (_repeats(found, index), found.shapes[node.input[1]], by_node.get(index, {}))
            for index, node in enumerate(found.model.graph.node)
            if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and node.input[1] in stored
        ]
        self._products = [
            (found.shapes[node.input[0]], found.shapes[node.output[0]], found.axes.get(node.output[0], {}))
            for node in found.model.graph.node
            if node.op_type == "MatMul" and not stored & set(node.input)
        ]

    def gone(self, labels: Iterable[int]) -> Array:
        """Return (label_count + 1,) bool, True where a unit is removed; the last stands for what is fixed."""
        import numpy as np

        mask = np.zeros(self.label_count + 1, dtype=bool)
        mask[list(labels)] = True
        return mask

    def cost(self, labels: Iterable[int]) -> Cost:
        """Return the cost with the units ``labels`` removed."""
        gone = self.gone(labels)
        parameters = size = 0
        for shape, axes, width in self._stored:
            count = _kept(shape, axes, gone)
            parameters += count if width else 0
            size += count * (width or 8)
        macs = sum(repeats * _kept(shape, axes, gone) for repeats, shape, axes in self._layers)
        macs += sum(shape[-1] * _kept(made, axes, gone) for shape, made, axes in self._products)
        return Cost(parameters, macs, size)


def _kept(shape: tuple[int, ...], axes: dict[int, Array], gone: Array) -> int:
    lengths = list(shape)
    for axis, labels in axes.items():
        lengths[axis] = int((~gone[labels]).sum())
    return math.prod(lengths)


def _repeats(found: Dependencies, index: int) -> int:
    """Return how often each weight of a layer is used for one sample."""
    node = found.model.graph.node[index]
    given, made = found.shapes[node.input[0]], found.shapes[node.output[0]]
    if node.op_type == "Conv":
        return math.prod(made[2:])
    if node.op_type == "ConvTranspose":
        return math.prod(given[2:])
    return max(1, math.prod(given[:-1]) // max(1, given[0]))
