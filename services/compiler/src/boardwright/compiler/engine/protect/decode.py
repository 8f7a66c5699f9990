"""Rules ``tail`` and ``selection``: what turns the last layers' numbers into boxes, scores and choices.

- **tail**: no later layer corrects the rounding of what comes after the last layers (softmax, sigmoid, exp,
  box decoding), and it costs next to nothing.
- **selection**: in networks that choose candidates in their middle (proposals, queries), sorting, suppression
  and coordinates are decided by differences that 8 bits do not keep: equal scores have no order, and a box
  of 640 px is known to 2.5 px.
"""

from __future__ import annotations

from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS, describe
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import FUSED_ACTIVATIONS, Subject, only_into

_HARMLESS = (
    MOVEMENT_OPERATORS
    | FUSED_ACTIVATIONS
    | {"Constant", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"}
)
_COORDINATES = {"RoiAlign": 1, "MaxRoiPool": 1, "GridSample": 1}
_CHOICES = frozenset({"NonMaxSuppression", "TopK", "ArgMax", "ArgMin", "NonZero"})


def find_tail(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return the nodes that have no layer behind them and are none themselves, if the graph has layers.

    A tail that only moves, pools or clips values is left to the integer kernels.
    """
    if not subject.layers:
        return []
    tail = {
        index
        for index, node in enumerate(subject.nodes)
        if not subject.topology.reaches_layer[index]
        and index not in subject.layers
        and index not in taken
        and node.op_type not in (FUSED_ACTIVATIONS | {"Constant"})
    }
    if all(subject.nodes[index].op_type in _HARMLESS for index in tail):
        return []
    telling = [index for index in sorted(tail) if subject.nodes[index].op_type not in _HARMLESS][:2]
    named = ", ".join(describe(subject.nodes[index]) for index in telling)
    exclusion = Exclusion(
        "tail",
        subject.names(tail),
        f"{len(tail)} nodes after the last layers ({named}…) turn their numbers into the answer: no later "
        "layer corrects their rounding, and they cost next to nothing.",
    )
    return [(exclusion, tail)]


def find_selections(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return what leads from layers to a choice or to coordinates in mid-network, one entry per choice."""
    found = []
    topology = subject.topology
    for index, node in enumerate(subject.nodes):
        if node.op_type not in _CHOICES and node.op_type not in _COORDINATES:
            continue
        start = [index]
        own = {index} if node.op_type in _CHOICES else set()
        if node.op_type in _COORDINATES:
            producer = topology.producer_of(node.input[_COORDINATES[node.op_type]])
            if producer is None or producer in subject.layers:
                continue
            start, own = [producer], {producer}
        before = topology.walk(start, topology.producers, lambda found: found in subject.layers)
        goal = {index} | own
        nodes = ((only_into(topology, before - {index}, goal) | own) - taken) - {
            found for found in before if subject.nodes[found].op_type in FUSED_ACTIVATIONS
        }
        if not any(subject.may_be_integer(found) for found in nodes):
            continue
        what = "decides by small differences" if node.op_type in _CHOICES else "reads features at coordinates"
        exclusion = Exclusion(
            "selection",
            subject.names(nodes),
            f"{describe(node)} {what} that 8 bits do not keep: the {len(nodes)} nodes that lead to it from "
            "the layers before it stay as they are.",
        )
        found.append((exclusion, nodes))
        taken = taken | nodes
    return found
