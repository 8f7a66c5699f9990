"""Rules ``join`` and ``sum``: operators that put inputs of very different magnitude under one scale.

A Concat, Where or ScatterND copies its inputs into one tensor, an Add or Sum lays one over the other. Under
8 bits an input whose magnitude is 1/32 of the largest keeps less than 3 bits: with boxes of 0 to 640 px
beside scores of 0 to 1, every score becomes 0; beside an attention mask of -10,000, all scores are equal.
"""

from __future__ import annotations

import math

from boardwright.compiler.engine.graph.topology import describe
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import SUMS, Subject, around

JOIN_RATIO = 32.0
"""Anything from 8 to 250 leaves the same nodes out of YOLOv5n, YOLOv8n, YOLO11n and YOLO26n: what drowns
there differs 250-fold and more."""

_COPIES = frozenset({"Concat", "Where", "ScatterND", "ScatterElements", "Max", "Min"})
_LARGEST = 3.5e38
_WHERE_CONDITION, _SCATTER_INDICES = 0, 1


def wide_join_ratio(magnitudes: list[float]) -> float:
    """Return how many times the largest magnitude exceeds the smallest that is not zero."""
    positive = [value for value in magnitudes if value > 0]
    return max(positive) / min(positive) if len(positive) > 1 else 1.0


def find_joins(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return the copies that one scale does not fit, the widest first, with what belongs to them."""
    found = []
    for ratio, index, magnitudes in _wide(subject, _COPIES):
        if index in taken:
            continue
        nodes = ({index} | around(subject.topology, index, subject.layers)) - taken
        found.append((_explain(subject, index, ratio, magnitudes, nodes), nodes))
        taken = taken | nodes
    return found


def find_sums(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return the sums in which one side drowns the other, with the layers that read them."""
    found = []
    for ratio, index, magnitudes in _wide(subject, SUMS):
        readers = subject.topology.consumers(index)
        rounding = {reader for reader in readers if subject.may_be_integer(reader) and reader not in taken}
        if index in taken or not rounding <= subject.layers:
            continue  # a sum that further sums read on integers would be rounded for them all the same
        nodes = {index} | rounding
        found.append((_explain(subject, index, ratio, magnitudes, nodes), nodes))
    return found


def _wide(subject: Subject, operators: frozenset[str]) -> list[tuple[float, int, dict[str, float]]]:
    """Return ratio, index and magnitudes of each node of these operators that is too wide, widest first."""
    wide = []
    for index, node in enumerate(subject.nodes):
        if node.op_type in operators:
            magnitudes = joined_magnitudes(subject, index)
            ratio = wide_join_ratio(list(magnitudes.values()))
            if ratio >= JOIN_RATIO:
                wide.append((ratio, index, magnitudes))
    return sorted(wide, key=lambda entry: (-entry[0], entry[1]))


def joined_magnitudes(subject: Subject, index: int) -> dict[str, float]:
    """Return the magnitudes of what a node joins, by input name; empty where it joins nothing.

    A constant counts as what drowns, never as what is drowned: it holds no information about the input.
    """
    node = subject.nodes[index]
    if node.op_type in _COPIES:
        left_out = {"Where": _WHERE_CONDITION}.get(node.op_type, -1)
        if node.op_type.startswith("Scatter"):
            left_out = _SCATTER_INDICES
        names = [name for position, name in enumerate(node.input) if position != left_out]
    elif node.op_type in SUMS:
        names = list(node.input)
    else:
        return {}
    activations = {name: subject.ranges[name].magnitude for name in names if name in subject.ranges}
    if not activations:
        return {}
    smallest = min((value for value in activations.values() if value > 0), default=0.0)
    constants = {name: _magnitude(subject, name) for name in names if name not in activations}
    return activations | {name: value for name, value in constants.items() if value > smallest}


def _magnitude(subject: Subject, name: str) -> float:
    import numpy as np

    value = subject.constant(name) if name else None
    if value is None or not value.size or value.dtype.kind != "f":
        return 0.0
    largest = float(np.abs(value.astype(np.float64)).max())
    return min(largest, _LARGEST) if not math.isnan(largest) else 0.0


def _explain(
    subject: Subject, index: int, ratio: float, magnitudes: dict[str, float], nodes: set[int]
) -> Exclusion:
    node = subject.nodes[index]
    parts = ", ".join(f"{name!r} reaches {value:.4g}" for name, value in magnitudes.items())
    verb = "adds" if node.op_type in SUMS else "joins"
    return Exclusion(
        "sum" if node.op_type in SUMS else "join",
        subject.names(nodes),
        f"{describe(node)} {verb} tensors whose magnitudes differ {ratio:.4g}-fold ({parts}): under one "
        f"8-bit scale the smaller would be left with {256 / ratio:.1f} of 256 steps.",
    )
