"""Walking the lineage graph: breadth first, to a depth and a size.

Blobs are named by their content, so two steps that made the same bytes made one blob, and two resources may
hold it. A resource names the record of the step that made it, which tells such producers apart: of the steps
that made a blob, those count that a resource on the way names (and all, where that one was itself given the
blob, as a pass is that changes nothing: the others led to it); and a resource that is reached by a blob alone
counts if the step that it names was reached too. Where no resource tells, all that made the bytes are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["ancestors", "descendants"]

DEFAULT_DEPTH = 10
MAX_DEPTH = 50
MAX_NODES = 2000
RECORD = "record"
"""The role of the edge from a step to the resource that names its record."""


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`from_id` went into `to_id`; ids are digests or resource names."""

    from_id: str
    to_id: str
    role: str


def file_edge(digest: str, holder: str, path: str) -> Edge:
    """From a file to the resource that holds it, under its path, which is never taken for a `RECORD`."""
    return Edge(digest, holder, f"./{path}" if path == RECORD else path)


EdgesOf = Callable[[Sequence[str], Direction], Sequence[Edge]]


@dataclass(frozen=True, slots=True)
class Graph:
    """The part of the graph that was reached; `truncated` when depth or size cut it."""

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    truncated: bool


def walk(
    start: str,
    directions: Iterable[Direction],
    edges_of: EdgesOf,
    *,
    depth: int = DEFAULT_DEPTH,
    max_nodes: int = MAX_NODES,
) -> Graph:
    """Collect what is reachable from `start`. `edges_of` gives the edges of a whole frontier at once."""
    nodes: dict[str, None] = {start: None}
    edges: dict[Edge, None] = {}
    truncated = False
    for direction in directions:
        found, cut = _reach(start, direction, edges_of, depth, max_nodes - len(nodes))
        for edge in _connected(start, direction, _without_equals(start, direction, found, edges_of)):
            edges[edge] = nodes[edge.from_id] = nodes[edge.to_id] = None
        truncated = truncated or cut
    return Graph(tuple(nodes), tuple(edges), truncated)


def _reach(
    start: str, direction: Direction, edges_of: EdgesOf, depth: int, room: int
) -> tuple[list[Edge], bool]:
    """The edges to at most `room` other nodes, the nearest first, and whether there is more."""
    edges: dict[Edge, None] = {}
    reached, frontier, truncated = {start}, [start], False
    for level in range(depth + 1):
        found = edges_of(frontier, direction) if frontier else ()
        if level == depth:
            truncated = truncated or bool(found)
            break
        frontier = []
        for edge in found:
            other = _far_end(edge, direction)
            if other not in reached:
                if len(reached) > room:
                    truncated = True
                    continue
                reached.add(other)
                frontier.append(other)
            edges[edge] = None
    return list(edges), truncated


def _without_equals(
    start: str, direction: Direction, edges: Sequence[Edge], edges_of: EdgesOf
) -> Iterable[Edge]:
    """Leave out what nothing but equal bytes connects; see the module."""
    if direction == "ancestors":
        named = {edge.from_id for edge in edges if _is_record(edge)}
        makers = Counter(edge.to_id for edge in edges if _is_digest(edge.to_id))
        settled = {
            edge.to_id
            for edge in edges
            if edge.from_id in named and makers[edge.to_id] > 1 and not _is_made_of(edge, edges)
        }
        return [edge for edge in edges if edge.to_id not in settled or edge.from_id in named]
    reached = {start, *(edge.to_id for edge in edges)}
    holders = {edge.to_id for edge in edges if _is_digest(edge.from_id) and not _is_digest(edge.to_id)}
    others = {
        edge.to_id
        for edge in (edges_of(sorted(holders), "ancestors") if holders else ())
        if _is_record(edge) and edge.from_id not in reached
    }
    return [
        edge
        for edge in edges
        if edge.to_id not in others or edge.from_id == start or not _is_digest(edge.from_id)
    ]


def _is_made_of(made: Edge, edges: Iterable[Edge]) -> bool:
    """Whether a step that made a blob was given the same one, as a pass is that changes nothing."""
    return any(edge.from_id == made.to_id for edge in _connected(made.from_id, "ancestors", edges))


def _connected(start: str, direction: Direction, edges: Iterable[Edge]) -> list[Edge]:
    """Those of `edges` that still lead from `start`, the nearest first."""
    onward: dict[str, list[Edge]] = {}
    for edge in edges:
        onward.setdefault(_near_end(edge, direction), []).append(edge)
    seen, queue, kept = {start}, [start], []
    for node in queue:
        for edge in onward.get(node, ()):
            kept.append(edge)
            if (other := _far_end(edge, direction)) not in seen:
                seen.add(other)
                queue.append(other)
    return kept


def _far_end(edge: Edge, direction: Direction) -> str:
    return edge.from_id if direction == "ancestors" else edge.to_id


def _near_end(edge: Edge, direction: Direction) -> str:
    return edge.to_id if direction == "ancestors" else edge.from_id


def _is_digest(node: str) -> bool:
    return node.startswith("sha256:")


def _is_record(edge: Edge) -> bool:
    return edge.role == RECORD and not _is_digest(edge.to_id)
