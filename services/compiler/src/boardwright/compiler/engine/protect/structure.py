"""What the rules ask of a graph: which nodes are layers, what runs on integers, and what a tensor reaches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import shapes_of, stored_tensors
from boardwright.compiler.engine.graph.layers import layer_macs
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.observe import TensorRange
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

SUMS = frozenset({"Add", "Sub", "Sum"})
FUSED_ACTIVATIONS = frozenset({"Relu", "Clip"})
"""Operators that become part of the integer layer in front of them: only its output's range changes."""


class Subject:
    """A prepared graph with its ranges, under a scheme: what each rule looks at.

    ``layers`` are the indices of trained layers; ``ranges`` those of the calibration record. Values of
    constants are read on demand.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        ranges: Mapping[str, TensorRange],
        scheme: QuantizationScheme | None = None,
    ) -> None:
        self.model = model
        self.topology = Topology(model.graph)
        self.nodes = self.topology.nodes
        self.ranges = ranges
        self.scheme = scheme or QuantizationScheme()
        self.operators = self.scheme.integer_operators
        self.layers = self.topology.layers
        self._stored = stored_tensors(model.graph)

    def constant(self, name: str) -> Array | None:
        """Return the value of a constant, or None for what is computed."""
        from onnx import numpy_helper

        stored = self._stored.get(name)
        return None if stored is None else numpy_helper.to_array(stored)

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return a tensor's inferred shape, with 0 for free axes; None where nothing is known of it."""
        if tensor in self._stored:
            return tuple(self._stored[tensor].dims)
        return self._shapes.get(tensor)

    @cached_property
    def macs(self) -> dict[int, int]:
        """The multiply-accumulates of each layer per run, by its node."""
        return layer_macs(self.model, self.topology)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes_of(self.model.graph)

    def names(self, indices: Iterable[int]) -> tuple[str, ...]:
        """Return the names of nodes in the graph's order."""
        return tuple(self.nodes[index].name for index in sorted(indices))

    def may_be_integer(self, index: int) -> bool:
        """Tell whether the scheme's kernels run this node on integers if nothing forbids it."""
        node = self.nodes[index]
        return node.op_type in self.operators and any(name in self.ranges for name in node.output)


def around(topology: Topology, index: int, layers: Collection[int]) -> set[int]:
    """Return what belongs to a node of the decode: back to the last layers, and on if no layer follows.

    In mid-network only what leads nowhere else belongs to it, and the layers that read it: were they on
    integers, its output would be rounded for them all the same.
    """
    before = topology.walk([index], topology.producers, lambda node: node in layers)
    after = topology.walk([index], topology.consumers, lambda _: False)
    if not after.isdisjoint(layers):
        return only_into(topology, before, {index}) | readers(topology, index, layers)
    return before | after


def readers(topology: Topology, index: int, layers: Collection[int]) -> set[int]:
    """Return what reads a node's output up to the next layers, with these."""
    passed = topology.walk([index], topology.consumers, lambda node: node in layers)
    read = {consumer for node in passed | {index} for consumer in topology.consumers(node)}
    return passed | read.intersection(layers)


def only_into(topology: Topology, nodes: set[int], goal: set[int]) -> set[int]:
    """Return those of ``nodes`` that lead nowhere but to each other and to ``goal``."""
    kept = set(nodes)
    while True:
        leaving = {
            node
            for node in kept
            if any(consumer not in kept and consumer not in goal for consumer in topology.consumers(node))
        }
        if not leaving:
            return kept
        kept -= leaving


def with_followers(subject: Subject, layer: int) -> set[int]:
    """Return a layer with the elementwise operators that read nothing but its output."""
    members = {layer}
    waiting = [layer]
    topology = subject.topology
    while waiting:
        for consumer in topology.consumers(waiting.pop()):
            node = subject.nodes[consumer]
            if consumer in members or consumer in subject.layers or node.op_type in ("Concat", "Resize"):
                continue
            known = {topology.producer_of(name) for name in topology.activation_inputs(consumer)}
            elementwise = (
                subject.shape(node.output[0]) == subject.shape(subject.nodes[layer].output[0])
                or node.op_type in FUSED_ACTIVATIONS
            )
            if elementwise and known <= members:
                members.add(consumer)
                waiting.append(consumer)
    return members
