"""Where tensors pass between integers and floats, what each island of floats costs, and rule ``pocket``.

Each tensor that an integer kernel makes and a float kernel reads needs a Dequantize, and the other way round
a Quantize. A pocket is an operator between others that run in floating point anyway: on integers it would
only add conversions. Where a sum costs as many either way, floats are more exact: what a transformer adds up
from block to block would be rounded at each of them, for norms that read it in floating point.
"""

from __future__ import annotations

from collections.abc import Iterable

from boardwright.compiler.engine.graph.topology import Topology, describe
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import FUSED_ACTIVATIONS, SUMS, Subject


def integer_nodes(subject: Subject, excluded: Iterable[int] = ()) -> set[int]:
    """Return the nodes that run on integers when ``excluded`` stay in floating point."""
    return {index for index in range(len(subject.nodes)) if subject.may_be_integer(index)} - set(excluded)


def count_conversions(subject: Subject, integers: set[int]) -> int:
    """Return how many tensors pass between integer and float nodes; graph inputs and outputs are floats."""
    names = dict.fromkeys(
        [value.name for value in subject.model.graph.input]
        + [name for node in subject.nodes for name in node.output]
    )
    return sum(_is_converted(subject.topology, name, integers) for name in names if name in subject.ranges)


def conversions_caused(subject: Subject, nodes: set[int], others: set[int]) -> int:
    """Return by how many conversions the graph grows when ``nodes`` join the excluded ``others``."""
    with_them = count_conversions(subject, integer_nodes(subject, nodes | others))
    return with_them - count_conversions(subject, integer_nodes(subject, others))


def find_pockets(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return the nodes without which, on integers, there are fewer conversions, and sums that cost none.

    None of them is a layer.
    """
    integers = integer_nodes(subject, taken)
    movable = integers - subject.layers
    pockets: set[int] = set()
    while True:
        groups = [{index} for index in sorted(movable - pockets)]
        groups += _connected(subject.topology, movable - pockets)
        gain, best = max(
            ((_saved(subject, integers, group), group) for group in groups),
            key=lambda pair: pair[0],
            default=(0, set()),
        )
        if gain <= 0:
            break
        pockets |= best
        integers = integers - best
    sums = _free_sums(subject, integers, movable - pockets)
    pockets = {index for index in pockets if subject.nodes[index].op_type not in FUSED_ACTIVATIONS}
    found = []
    if pockets:
        example = describe(subject.nodes[min(pockets)])
        reason = (
            f"{len(pockets)} nodes ({example}…) lie between operators that {subject.scheme.label} has no "
            "integer kernels for: on integers they would only add conversions and rounding."
        )
        found.append((Exclusion("pocket", subject.names(pockets), reason), pockets))
    if sums:
        reason = (
            f"{len(sums)} sums ({describe(subject.nodes[min(sums)])}…) are read in floating point: there "
            "they cost no more conversions than on integers, and are not rounded from block to block."
        )
        found.append((Exclusion("pocket", subject.names(sums), reason), sums))
    return found


def _free_sums(subject: Subject, integers: set[int], movable: set[int]) -> set[int]:
    """Return chains of sums that float operators read, and that cost no conversion in floating point."""
    topology = subject.topology
    found: set[int] = set()
    for group in _connected(topology, {index for index in movable if subject.nodes[index].op_type in SUMS}):
        read = {reader for index in group for reader in topology.consumers(index)}
        if read - integers and _saved(subject, integers, group) >= 0:
            found |= group
            integers = integers - group
    return found


def _saved(subject: Subject, integers: set[int], group: set[int]) -> int:
    """Return how many conversions go away when ``group`` runs in floating point."""
    names = {
        name for index in group for name in (*subject.nodes[index].input, *subject.nodes[index].output)
    } & subject.ranges.keys()
    without = integers - group
    return sum(
        _is_converted(subject.topology, name, integers) - _is_converted(subject.topology, name, without)
        for name in names
    )


def _is_converted(topology: Topology, name: str, integers: set[int]) -> bool:
    producer = topology.producer_of(name)
    made = producer is not None and producer in integers
    readers = topology.readers(name)
    if made:
        return name in topology.outputs or any(reader not in integers for reader in readers)
    return any(reader in integers for reader in readers)


def _connected(topology: Topology, nodes: set[int]) -> list[set[int]]:
    groups = []
    left = set(nodes)
    while left:
        start = min(left)
        group = {start} | topology.walk(
            [start],
            lambda index: topology.producers(index) + topology.consumers(index),
            lambda index: index not in nodes,
        )
        groups.append(group)
        left -= group
    return groups
