"""Where tensors pass between integers and floats, what each island of floats costs, and rule ``pocket``.

Each tensor that an integer kernel makes and a float kernel reads needs a Dequantize, and the other way round
a Quantize. A pocket is an operator between others that run in floating point anyway: on integers it would
only add conversions. Where a sum costs as many either way, floats are more exact: what a transformer adds up
from block to block would be rounded at each of them, for norms that read it in floating point.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heappop, heappush

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
    savings = _Savings(subject, integers, movable)
    pockets: set[int] = set()
    while best := savings.take():
        pockets |= best
    integers = integers - pockets
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


class _Savings:
    """How many conversions go away with each movable node, and with each connected group of them.

    As groups leave the integers, what they touch is counted anew, and nothing else.
    """

    def __init__(self, subject: Subject, integers: set[int], movable: set[int]) -> None:
        self._subject, self._integers = subject, set(integers)
        self._groups: dict[int, frozenset[int]] = {}
        self._saved: dict[frozenset[int], int] = {}
        self._waiting: list[tuple[int, bool, int, frozenset[int]]] = []
        for index in movable:
            self._count(frozenset({index}))
        self._connect(movable)

    def take(self) -> set[int]:
        """Take the group that saves most from the integers, a node alone and an early one first; or none."""
        while self._waiting:
            saved, _, _, best = heappop(self._waiting)
            if self._saved.get(best) == -saved:
                self._leave(best)
                return set(best)
        return set()

    def _leave(self, best: frozenset[int]) -> None:
        self._integers -= best
        left: set[int] = set()
        for index in best:
            group = self._groups.pop(index)
            left |= group
            self._saved.pop(group, None)
            self._saved.pop(frozenset({index}), None)
        self._connect(left - best)
        for index in self._touching(best) & self._groups.keys():
            self._count(frozenset({index}))
            self._count(self._groups[index])

    def _connect(self, nodes: set[int]) -> None:
        for group in map(frozenset, _connected(self._subject.topology, nodes)):
            self._groups |= dict.fromkeys(group, group)
            self._count(group)

    def _count(self, group: frozenset[int]) -> None:
        saved = _saved(self._subject, self._integers, group)
        if self._saved.get(group) != saved:
            self._saved[group] = saved
            if saved > 0:
                heappush(self._waiting, (-saved, len(group) > 1, min(group), group))

    def _touching(self, nodes: Iterable[int]) -> set[int]:
        topology = self._subject.topology
        found: set[int] = set()
        for index in nodes:
            for name in (*topology.nodes[index].input, *topology.nodes[index].output):
                producer = topology.producer_of(name)
                found.update(topology.readers(name), () if producer is None else (producer,))
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


def _saved(subject: Subject, integers: set[int], group: Collection[int]) -> int:
    """Return how many conversions go away when ``group`` runs in floating point."""
    names = {
        name for index in group for name in (*subject.nodes[index].input, *subject.nodes[index].output)
    } & subject.ranges.keys()
    topology = subject.topology
    return sum(
        _is_converted(topology, name, integers) - _is_converted(topology, name, integers, without=group)
        for name in names
    )


def _is_converted(
    topology: Topology, name: str, integers: Collection[int], without: Collection[int] = ()
) -> bool:
    def is_integer(index: int) -> bool:
        return index in integers and index not in without

    producer = topology.producer_of(name)
    readers = topology.readers(name)
    if producer is not None and is_integer(producer):
        return name in topology.outputs or not all(map(is_integer, readers))
    return any(map(is_integer, readers))


def _connected(topology: Topology, nodes: set[int]) -> list[set[int]]:
    groups = []
    seen: set[int] = set()
    for start in sorted(nodes):
        if start in seen:
            continue
        group = {start} | topology.walk(
            [start],
            lambda index: topology.producers(index) + topology.consumers(index),
            lambda index: index not in nodes,
        )
        groups.append(group)
        seen |= group
    return groups
