"""Rule ``attention``: what lies around a softmax in mid-network.

- Scores go through exp: a step of the scale becomes a factor. What scales and masks them stays in floating
  point, and so does the MatMul that makes them where one step would change a weight by more than a quarter.
- Probabilities share one scale from 0 to their largest. Over N positions their mean is 1/N: where that is
  less than one of 255 steps, most of them would become 0, and the MatMul that uses them stays in float.
"""

from __future__ import annotations

import math

from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS, describe
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import Subject

_STEPS = 255
_LARGEST_STEP = math.log(1.25)
"""The scores of YOLO11n and YOLO26n make steps of 0.5 to 7 %: half of this or twice as much decides alike."""
_MOST_TOLD = 100.0
"""A factor beyond which none is told: the exponential of a large one is no number."""
_SCALING = MOVEMENT_OPERATORS | {"Mul", "Div"}
_BETWEEN = MOVEMENT_OPERATORS | {"Mul", "Div", "Add", "Sub", "Where", "Max", "Clip"}


def find_attention(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return what quantization would spoil around each softmax that has layers behind it."""
    found = []
    for index, node in enumerate(subject.nodes):
        if node.op_type != "Softmax" or not subject.topology.reaches_layer[index] or index in taken:
            continue
        nodes, reasons = _before(subject, index)
        after, told = _after(subject, index)
        nodes = (nodes | after) - taken
        if not any(subject.may_be_integer(node) for node in nodes):
            continue
        sentence = f"{describe(node)} weighs positions: " + "; ".join(reasons + told) + "."
        found.append((Exclusion("attention", subject.names(nodes | {index}), sentence), nodes | {index}))
        taken = taken | nodes
    return found


def score_layers(subject: Subject) -> set[int]:
    """Return the layers whose outputs are multiplied into the scores of a softmax in mid-network."""
    topology = subject.topology
    found: set[int] = set()
    for index, node in enumerate(subject.nodes):
        if node.op_type != "Softmax" or not subject.topology.reaches_layer[index]:
            continue
        products = {
            producer
            for member in _between(subject, index) | {index}
            for producer in topology.producers(member)
            if subject.nodes[producer].op_type == "MatMul" and producer not in subject.layers
        }
        moved = topology.walk(
            products, topology.producers, lambda found: subject.nodes[found].op_type not in _BETWEEN
        )
        found |= {
            producer for member in moved | products for producer in topology.producers(member)
        } & subject.layers
    return found


def _between(subject: Subject, softmax: int) -> set[int]:
    """Return what scales, masks and moves the scores on their way to a softmax."""
    return subject.topology.walk(
        [softmax],
        subject.topology.producers,
        lambda node: subject.nodes[node].op_type not in _BETWEEN,
    )


def _before(subject: Subject, softmax: int) -> tuple[set[int], list[str]]:
    topology = subject.topology
    between = _between(subject, softmax)
    reasons = ["a step of the scores becomes a factor of the weights, so nothing rounds them on their way"]
    nodes = set(between)
    for index in {
        producer for node in between | {softmax} for producer in topology.producers(node)
    } - between:
        node = subject.nodes[index]
        if node.op_type != "MatMul" or index in subject.layers:
            continue
        span = _span(subject, _scaled(subject, index, between))
        if span / _STEPS > _LARGEST_STEP:
            nodes.add(index)
            change = math.expm1(min(span / _STEPS, math.log(_MOST_TOLD)))
            reasons.append(
                f"its scores span {span:.4g}, and one of {_STEPS} steps would change a weight by "
                f"{100 * change:.0f} %{' and more' if change > _MOST_TOLD - 2 else ''}"
            )
    return nodes, reasons


def _scaled(subject: Subject, product: int, between: set[int]) -> str:
    """Return the scores as the softmax takes them, but for its mask: a mask's span is no score's."""
    topology = subject.topology
    name: str = subject.nodes[product].output[0]
    while True:
        following = [index for index in topology.readers(name) if index in between]
        if len(following) != 1 or subject.nodes[following[0]].op_type not in _SCALING:
            return name
        name = subject.nodes[following[0]].output[0]


def _span(subject: Subject, tensor: str) -> float:
    found = subject.ranges.get(tensor)
    return found.high - found.low if found is not None else 0.0


def _after(subject: Subject, softmax: int) -> tuple[set[int], list[str]]:
    node = subject.nodes[softmax]
    shape = subject.shape(node.output[0])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
    if not shape or not -len(shape) <= axis < len(shape) or node.output[0] not in subject.ranges:
        return set(), []
    positions, largest = shape[axis], subject.ranges[node.output[0]].high
    if positions < 2 or largest <= 0 or 1 / positions >= largest / _STEPS:
        return set(), []
    topology = subject.topology
    nodes = topology.walk(
        [softmax], topology.consumers, lambda found: subject.nodes[found].op_type not in MOVEMENT_OPERATORS
    )
    readers = {
        consumer
        for index in nodes | {softmax}
        for consumer in topology.consumers(index)
        if subject.nodes[consumer].op_type == "MatMul"
    }
    reason = (
        f"over {positions} positions the mean weight is {1 / positions:.2g}, below the step of "
        f"{largest / _STEPS:.2g}, and would become 0"
    )
    return nodes | readers, [reason] if readers else []
