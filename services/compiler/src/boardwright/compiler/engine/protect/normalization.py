"""Rule ``normalization``: LayerNorm, RMSNorm and L2 norms that an exporter wrote out as elementary operators.

Squares have twice the dynamic range of what is squared, and a small epsilon beside a variance of hundreds
rounds to nothing: what the square root and the division then make of it is far from the norm.
"""

from __future__ import annotations

from boardwright.compiler.engine.graph.topology import describe
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import Subject

_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "GlobalAveragePool"})
_ON_THE_WAY = frozenset({"Add", "Mul", "Div", "Clip", "Max", "Cast", "Unsqueeze", "Reshape", "Expand"})
_SQUARES = frozenset({"Pow", "Mul", "Abs"})
_DIVISIONS = frozenset({"Div", "Mul", "Reciprocal"})


def find_normalizations(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return each written-out norm: from the subtraction of the mean to the affine scale behind it."""
    found = []
    for index, node in enumerate(subject.nodes):
        if node.op_type not in ("Sqrt", "ReduceL2") or index in taken:
            continue
        nodes = _root(subject, index)
        if not nodes:
            continue
        nodes = (nodes | _division(subject, index)) - taken
        if not any(subject.may_be_integer(node) for node in nodes):
            continue
        found.append(
            (
                Exclusion(
                    "normalization",
                    subject.names(nodes),
                    f"{len(nodes)} nodes around {describe(node)} normalise by a root of summed squares: "
                    "squares have twice the dynamic range of their tensor, which 8 bits do not hold.",
                ),
                nodes,
            )
        )
        taken = taken | nodes
    return found


def _root(subject: Subject, index: int) -> set[int]:
    """Return the root with what leads to it from the squared tensor; empty where it is no norm."""
    topology = subject.topology
    if subject.nodes[index].op_type == "ReduceL2":
        return {index}
    between = topology.walk(
        [index], topology.producers, lambda node: subject.nodes[node].op_type not in _ON_THE_WAY
    )
    reductions = {
        producer
        for node in between | {index}
        for producer in topology.producers(node)
        if subject.nodes[producer].op_type in _REDUCTIONS
    }
    if not reductions:
        return set()
    behind = topology.walk(reductions, topology.consumers, _never)
    nodes = (between & behind) | reductions | {index}
    for reduction in reductions:
        for square in topology.producers(reduction):
            if subject.nodes[square].op_type in _SQUARES and square not in subject.layers:
                nodes |= {square} | _centring(subject, square)
    return nodes


def _centring(subject: Subject, square: int) -> set[int]:
    """Return the subtraction of the mean in front of the square, if there is one, and that mean."""
    nodes = set()
    for index in subject.topology.producers(square):
        if subject.nodes[index].op_type in ("Sub", "Add"):
            means = {
                producer
                for producer in subject.topology.producers(index)
                if subject.nodes[producer].op_type in _REDUCTIONS
            }
            nodes |= ({index} | means) if means else set()
    return nodes


def _division(subject: Subject, index: int) -> set[int]:
    """Return the division by the root and the constant scale and shift right behind it."""
    topology = subject.topology
    nodes: set[int] = set()
    current = [index]
    for _ in range(5):
        following = [
            consumer
            for node in current
            for consumer in topology.consumers(node)
            if subject.nodes[consumer].op_type in (_DIVISIONS | _ON_THE_WAY)
            and (not nodes & {node} or _is_affine(subject, consumer) or not _divided(subject, nodes))
            and consumer not in subject.layers
        ]
        nodes |= set(following)
        current = following
    return nodes


def _divided(subject: Subject, nodes: set[int]) -> bool:
    return any(subject.nodes[node].op_type in ("Div", "Mul") for node in nodes)


def _is_affine(subject: Subject, index: int) -> bool:
    node = subject.nodes[index]
    return node.op_type in ("Mul", "Add") and any(name in subject.topology.constants for name in node.input)


def _never(_: int) -> bool:
    return False
