"""Which channels of a graph depend on one another, found by following labels through every operator.

Each layer's output channels get labels of their own. Operators pass them on, position by position: an Add
ties the labels of its inputs, a Concat strings them together, a Split or Slice takes its part of them, a
Reshape folds them. So no architecture has to be known and nothing is rewritten: a C2f's halves simply get
unequal lengths. What mixes channels without weights (softmax, sorting, an unknown operator) or is an output
of the graph freezes what reaches it. The idea is that of "Structurally Prune Anything" (Wang et al., 2024,
https://arxiv.org/abs/2403.18955), here with labels instead of one propagated mask per channel, and of
DepGraph (Fang et al., 2023, https://arxiv.org/abs/2301.12900).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import captured
from boardwright.compiler.engine.pruning.graph import shapes_of
from boardwright.compiler.engine.pruning.labels import Labels, Site

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

Axes = dict[int, "Array"]


@dataclass(frozen=True, slots=True, eq=False)
class Dependencies:
    """What ``find_dependencies`` found: labels resolved to their representatives.

    ``axes`` maps a tensor to its labelled axes, ``sites`` are the stored tensors that follow, ``shapes`` are
    the graph's own. ``frozen_by`` tells which operators kept channels from being pruned, and how often.
    """

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]]
    axes: Mapping[str, Axes]
    sites: tuple[Site, ...]
    frozen_by: Mapping[str, int]


class Trace:
    """The state while labels travel through the graph; what rules read and write."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.shapes = shapes_of(model)
        self.labels = Labels()
        self.axes: dict[str, Axes] = {}
        self.sites: list[Site] = []
        self.frozen_by: dict[str, int] = {}
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made: dict[tuple[str, int], Array] = {}
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.input:
                self.readers.setdefault(name, []).append(index)

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is stored in the graph."""
        return name in self._stored

    def value(self, name: str) -> Array | None:
        """Return a stored tensor, None where ``name`` is none."""
        from onnx import numpy_helper

        if not name or name not in self._stored:
            return None
        found: Array = numpy_helper.to_array(self._stored[name])
        return found

    def rank(self, name: str) -> int:
        """Return a tensor's number of axes."""
        return len(self.shapes.get(name, ()))

    def labels_of(self, name: str, axis: int) -> Array | None:
        """Return the labels of one axis, None where it has none."""
        return self.axes.get(name, {}).get(axis)

    def put(self, name: str, axis: int, labels: Array | None) -> None:
        """Give an axis of an activation its labels."""
        if labels is None or not name:
            return
        if labels.size == self.shapes.get(name, ())[axis]:
            self.axes.setdefault(name, {})[axis] = labels
        else:
            self.labels.freeze(labels)

    def fresh(self, tensor: str, axis: int, count: int) -> Array:
        """Return the labels of a stored tensor's axis, the same again for a weight that layers share."""
        key = (tensor, axis)
        if key not in self._made:
            self._made[key] = self.labels.fresh(count)
        return self._made[key]

    def tie_shared(self, tensor: str, axis: int, labels: Array) -> None:
        """Tie this axis of a weight to what other layers with the same weight make of it."""
        key = (tensor, axis)
        if key in self._made:
            self.labels.unite(self._made[key], labels)
        else:
            self._made[key] = labels

    def follow(self, node: int, slot: int, axis: int, labels: Array, role: str) -> None:
        """Note that an axis of the stored input ``slot`` of ``node`` follows ``labels``."""
        name = self.nodes[node].input[slot]
        self.sites.append(Site(node, slot, name, axis, labels, role))

    def freeze(self, name: str, why: str, axis: int | None = None) -> None:
        """Keep all channels of a tensor (or of one axis)."""
        for number, labels in self.axes.get(name, {}).items():
            if axis is None or number == axis:
                self.labels.freeze(labels)
                self.frozen_by[why] = self.frozen_by.get(why, 0) + 1


def find_dependencies(model: onnx.ModelProto) -> Dependencies:
    """Follow the channels of a prepared graph (``prepare_for_pruning``) from its layers to its outputs.

    Raises:
        EngineError: RUNTIME_REFUSED, see ``open_session``.
    """
    from boardwright.compiler.engine.pruning.rules import RULES, freeze_inputs

    trace = Trace(model)
    for index, node in enumerate(trace.nodes):
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or not all(name in trace.shapes for name in node.output if name):
            freeze_inputs(trace, index)
        else:
            rule(trace, index)
        for name in captured(node):
            trace.freeze(name, node.op_type)
    for value in trace.graph.output:
        trace.freeze(value.name, "output")
    return _resolved(trace)


def _resolved(trace: Trace) -> Dependencies:
    roots = trace.labels.roots
    axes = {
        name: {axis: roots(labels) for axis, labels in found.items()} for name, found in trace.axes.items()
    }
    sites = tuple(replace(site, labels=roots(site.labels)) for site in trace.sites)
    return Dependencies(trace.model, trace.shapes, axes, sites, dict(trace.frozen_by))
