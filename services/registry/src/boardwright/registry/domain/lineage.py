"""Walking the lineage graph: breadth first, to a depth and a size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["ancestors", "descendants"]

DEFAULT_DEPTH = 10
MAX_DEPTH = 50
MAX_NODES = 2000


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`from_id` went into `to_id`; ids are digests or resource names."""

    from_id: str
    to_id: str
    role: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The part of the graph that was reached; `truncated` when depth or size cut it."""

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    truncated: bool


def walk(
    start: str,
    directions: Iterable[Direction],
    edges_of: Callable[[Sequence[str], Direction], Sequence[Edge]],
    *,
    depth: int = DEFAULT_DEPTH,
    max_nodes: int = MAX_NODES,
) -> Graph:
    """Collect what is reachable from `start`. `edges_of` gives the edges of a whole frontier at once."""
    nodes: dict[str, None] = {start: None}
    edges: dict[Edge, None] = {}
    truncated = False
    for direction in directions:
        reached = {start}
        frontier = [start]
        for level in range(depth + 1):
            found = edges_of(frontier, direction) if frontier else ()
            if level == depth:
                truncated = truncated or bool(found)
                break
            frontier = []
            for edge in found:
                other = edge.from_id if direction == "ancestors" else edge.to_id
                if other not in nodes and len(nodes) >= max_nodes:
                    truncated = True
                    continue
                edges[edge] = None
                nodes[other] = None
                if other not in reached:
                    reached.add(other)
                    frontier.append(other)
    return Graph(tuple(nodes), tuple(edges), truncated)
