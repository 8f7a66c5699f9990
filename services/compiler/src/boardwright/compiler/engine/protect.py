"""Pass ``protect``: what must stay in floating point, found from the graph and its activation ranges.

Two rules hold for every model; neither knows any architecture:

- **tail**: what comes after the last layers (softmax, sigmoid, box decoding) is cheap, and the model's answer
  has no later layer to correct it. It stays in floating point.
- **joins**: a Concat puts its inputs under one scale. Where their magnitudes differ 32-fold and more, the
  smaller one is left with less than 3 of 8 bits: with boxes of 0 to 640 px beside scores of 0 to 1, every
  score becomes 0. The Concat stays in floating point, with what leads to it from the last layers before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS, Topology, describe
from boardwright.compiler.engine.observe import TensorRange

if TYPE_CHECKING:
    import onnx

JOIN_RATIO = 32.0
_JOINS = frozenset({"Concat"})


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A set of nodes that stays in floating point, and why, in a sentence. ``rule`` names the rule."""

    rule: str
    nodes: tuple[str, ...]
    reason: str


def protect(model: onnx.ModelProto, ranges: Mapping[str, TensorRange]) -> tuple[Exclusion, ...]:
    """Return what quantization has to leave alone in ``model``, whose nodes must all be named."""
    topology = Topology(model.graph)
    taken: set[int] = set()
    exclusions: list[Exclusion] = []
    for index, ratio in _wide_joins(topology, ranges):
        nodes = ({index} | _around_join(topology, index)) - taken
        taken |= nodes
        if nodes:
            exclusions.append(_join_exclusion(topology, index, ratio, nodes, ranges))
    tail = _tail(topology) - taken
    if tail:
        named = [describe(topology.nodes[index]) for index in sorted(tail)[:2]]
        exclusions.append(
            Exclusion(
                "tail",
                _names(topology, tail),
                f"{len(tail)} nodes after the last layers ({', '.join(named)}…) turn them into the answer: "
                "no "
                "later layer corrects their rounding, and they cost next to nothing.",
            )
        )
    return tuple(exclusions)


def wide_join_ratio(magnitudes: list[float]) -> float:
    """Return how many times the largest magnitude exceeds the smallest that is not zero."""
    positive = [value for value in magnitudes if value > 0]
    return max(positive) / min(positive) if len(positive) > 1 else 1.0


def _wide_joins(topology: Topology, ranges: Mapping[str, TensorRange]) -> list[tuple[int, float]]:
    found = []
    for index, node in enumerate(topology.nodes):
        if node.op_type not in _JOINS:
            continue
        magnitudes = [ranges[name].magnitude for name in topology.activation_inputs(index) if name in ranges]
        ratio = wide_join_ratio(magnitudes)
        if ratio >= JOIN_RATIO:
            found.append((index, ratio))
    return found


def _around_join(topology: Topology, index: int) -> set[int]:
    """Return what belongs to the join: back to the last layers, and on to the outputs if no layer follows."""
    before = topology.walk([index], topology.producers, lambda node: is_layer(topology, node))
    after = topology.walk([index], topology.consumers, lambda _: False)
    if any(is_layer(topology, node) for node in after):
        return {node for node in before if not _leads_elsewhere(topology, node, before | {index})}
    return before | after


def _leads_elsewhere(topology: Topology, node: int, known: set[int]) -> bool:
    return any(consumer not in known for consumer in topology.consumers(node))


def _tail(topology: Topology) -> set[int]:
    """Return the nodes that have no layer behind them and are none themselves, if the graph has layers."""
    has_layer_behind: list[bool] = [False] * len(topology.nodes)
    for index in range(len(topology.nodes) - 1, -1, -1):
        has_layer_behind[index] = any(
            is_layer(topology, consumer) or has_layer_behind[consumer]
            for consumer in topology.consumers(index)
        )
    if not any(is_layer(topology, index) for index in range(len(topology.nodes))):
        return set()
    return {
        index
        for index, node in enumerate(topology.nodes)
        if not has_layer_behind[index]
        and not is_layer(topology, index)
        and node.op_type not in ("Constant", "Clip", "Relu")  # fused into the layer in front of them
    }


def is_layer(topology: Topology, index: int) -> bool:
    """Tell whether a node is a trained layer.

    A Conv over a Softmax is none: it takes the expectation of a distribution over box edges (the DFL of
    YOLOv8 and later), with fixed weights 0, 1, 2…
    """
    if not topology.is_weighted(index):
        return False
    current = topology.producers(index)
    for _ in range(4):
        operators = {topology.nodes[node].op_type for node in current}
        if operators & {"Softmax"}:
            return False
        if not current or not operators <= MOVEMENT_OPERATORS:
            return True
        current = [producer for node in current for producer in topology.producers(node)]
    return True


def _join_exclusion(
    topology: Topology, index: int, ratio: float, nodes: set[int], ranges: Mapping[str, TensorRange]
) -> Exclusion:
    parts = [
        f"{name!r} reaches {ranges[name].magnitude:.4g}"
        for name in topology.activation_inputs(index)
        if name in ranges
    ]
    return Exclusion(
        "join",
        _names(topology, nodes),
        f"{describe(topology.nodes[index])} joins tensors whose magnitudes differ {ratio:.0f}-fold "
        f"({', '.join(parts)}): under one 8-bit scale the smaller would be left with "
        f"{max(256 / ratio, 0):.1f} of 256 steps.",
    )


def _names(topology: Topology, nodes: set[int]) -> tuple[str, ...]:
    return tuple(topology.nodes[index].name for index in sorted(nodes))
