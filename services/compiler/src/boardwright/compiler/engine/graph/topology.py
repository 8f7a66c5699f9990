"""Who feeds whom in an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.editing import captured

if TYPE_CHECKING:
    import onnx

WEIGHTED_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
"""Operators that carry a model's weights."""

MOVEMENT_OPERATORS = frozenset(
    {
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "Identity",
        "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Pad", "Cast",
    }
)  # fmt: skip
"""Operators that move values without changing them."""

_STEPS_UP = 4
"""How far a Softmax may be from the Conv that takes its expectation: Reshape and Transpose lie between."""


class Topology:
    """Producers and consumers of the top-level graph. Nodes are known by their index in ``graph.node``.

    Nodes stand in the order in which they can run, as ONNX demands.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.constants: set[str] = {tensor.name for tensor in graph.initializer}
        self.constants |= {
            output for node in self.nodes if node.op_type == "Constant" for output in node.output
        }
        self.outputs: set[str] = {value.name for value in graph.output}
        # What is left out, among inputs as among outputs, is the empty name: nobody reads it.
        self._producer = {
            output: index for index, node in enumerate(self.nodes) for output in node.output if output
        }
        self._consumers: dict[str, list[int]] = {}
        self._captured = {index: names for index, node in enumerate(self.nodes) if (names := captured(node))}
        for index, node in enumerate(self.nodes):
            for name in filter(None, (*node.input, *self._captured.get(index, ()))):
                self._consumers.setdefault(name, []).append(index)

    def producers(self, index: int) -> list[int]:
        """Return the nodes whose outputs feed node ``index``."""
        names = [*self.nodes[index].input, *self._captured.get(index, ())]
        return [self._producer[name] for name in names if name in self._producer]

    def consumers(self, index: int) -> list[int]:
        """Return the nodes that read an output of node ``index``."""
        return [consumer for name in self.nodes[index].output for consumer in self._consumers.get(name, [])]

    def readers(self, tensor: str) -> list[int]:
        """Return the nodes that read ``tensor``."""
        return self._consumers.get(tensor, [])

    def producer_of(self, tensor: str) -> int | None:
        """Return the node that makes ``tensor``, or None for inputs and initializers."""
        return self._producer.get(tensor)

    def is_weighted(self, index: int) -> bool:
        """Tell whether a node is a weighted operator with a constant among its inputs."""
        node = self.nodes[index]
        return node.op_type in WEIGHTED_OPERATORS and any(name in self.constants for name in node.input)

    @cached_property
    def layers(self) -> frozenset[int]:
        """The trained layers: weighted nodes, but for a Conv over a Softmax.

        That takes the expectation of a distribution over box edges (the DFL of YOLOv8 and later), with fixed
        weights 0, 1, 2…
        """
        return frozenset(
            index
            for index in range(len(self.nodes))
            if self.is_weighted(index) and not self._takes_expectation(index)
        )

    @cached_property
    def reaches_layer(self) -> tuple[bool, ...]:
        """For each node, whether a layer lies behind it."""
        reached = [False] * len(self.nodes)
        for index in range(len(self.nodes) - 1, -1, -1):
            reached[index] = any(
                consumer in self.layers or reached[consumer] for consumer in self.consumers(index)
            )
        return tuple(reached)

    @cached_property
    def last_layers(self) -> tuple[int, ...]:
        """The layers that have no layer behind them, in the graph's order."""
        return tuple(index for index in sorted(self.layers) if not self.reaches_layer[index])

    def _takes_expectation(self, index: int) -> bool:
        current = self.producers(index)
        for _ in range(_STEPS_UP):
            operators = {self.nodes[node].op_type for node in current}
            if "Softmax" in operators:
                return True
            if not current or not operators <= MOVEMENT_OPERATORS:
                return False
            current = [producer for node in current for producer in self.producers(node)]
        return False

    def activation_inputs(self, index: int) -> list[str]:
        """Return the inputs of a node that are no constants."""
        return [name for name in self.nodes[index].input if name and name not in self.constants]

    def walk(
        self, start: Iterable[int], step: Callable[[int], list[int]], stop: Callable[[int], bool]
    ) -> set[int]:
        """Return the nodes reached from ``start`` by ``step``, without those where ``stop`` holds."""
        reached: set[int] = set()
        waiting = [neighbour for index in start for neighbour in step(index)]
        while waiting:
            index = waiting.pop()
            if index in reached or stop(index):
                continue
            reached.add(index)
            waiting.extend(step(index))
        return reached


def describe(node: onnx.NodeProto) -> str:
    """Return a node's operator and name as people look for it in a graph viewer."""
    return f"{node.op_type} {node.name!r}" if node.name else f"{node.op_type} making {node.output[0]!r}"
