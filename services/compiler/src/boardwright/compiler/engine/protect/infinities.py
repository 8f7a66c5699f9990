"""Rule ``infinity``: what holds infinity on purpose, and what reads it.

A mask of attention, the padding of a maximum and coordinates that must never be chosen are infinite. No 8-bit
scale holds that, and one that tried would leave nothing of the other values.
"""

from __future__ import annotations

from boardwright.compiler.engine.graph.topology import describe
from boardwright.compiler.engine.observe import infinite_tensors
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import Subject


def find_infinities(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return the nodes that read or make a tensor which a constant makes infinite, all in one entry."""
    infinite = infinite_tensors(subject.model)
    nodes = {
        index
        for index, node in enumerate(subject.nodes)
        if infinite.intersection([*node.input, *node.output]) and node.op_type != "Constant"
    } - taken
    if not any(subject.nodes[index].op_type in subject.operators for index in nodes):
        return []
    first = describe(subject.nodes[min(nodes)])
    return [
        (
            Exclusion(
                "infinity",
                subject.names(nodes),
                f"{len(nodes)} nodes from {first} on hold infinity by a constant of the graph (a mask, or "
                "padding that must never win): no 8-bit scale has room for it.",
            ),
            nodes,
        )
    ]
