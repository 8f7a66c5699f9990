"""A lineage graph as a tree on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boardwright.api.registry.v1.registry_pb2 import Lineage

_SHORT_DIGITS = 12


def print_tree(graph: Lineage, root: str, *, up: bool) -> None:
    """Print what `root` was made of (`up`), or went into. A node that was shown before is only named."""
    for line in tree_lines(graph, root, up=up):
        sys.stdout.write(line + "\n")


def tree_lines(graph: Lineage, root: str, *, up: bool) -> list[str]:
    """The tree's lines. A resource's files were made by the step that it names, where that made them."""
    titles = {node.id: _title(node.id, node.kind, node.title) for node in graph.nodes}
    following: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        start, end = (edge.to_id, edge.from_id) if up else (edge.from_id, edge.to_id)
        following.setdefault(start, []).append((end, edge.role))
    lines = [titles.get(root, _title(root, "", ""))]
    shown = {(root, "")}

    def walk(node: str, maker: str, indent: str) -> None:
        branches = following.get(node, [])
        if maker:
            branches = [branch for branch in branches if branch[0] == maker]
        record = next((child for child, role in branches if up and _is_record(node, role)), "")
        made = {child for child, _ in branches if any(end == record for end, _ in following.get(child, []))}
        if made:
            branches = [branch for branch in branches if branch[0] != record]
        for number, (child, role) in enumerate(branches):
            last = number == len(branches) - 1
            key = (child, record if child in made else "")
            again = key in shown
            stem = "└─ " if last else "├─ "
            what = titles.get(child, child)
            lines.append(f"{indent}{stem}{role + ': ' if role else ''}{what}{' …' if again else ''}")
            if not again:
                shown.add(key)
                walk(*key, indent + ("   " if last else "│  "))

    walk(root, "", "")
    return lines


def _is_record(node: str, role: str) -> bool:
    return role == "record" and not node.startswith("sha256:")


def _title(identifier: str, kind: str, title: str) -> str:
    from boardwright.client.references import shorten

    if identifier.startswith("sha256:"):
        identifier = identifier[: len("sha256:") + _SHORT_DIGITS]
        named = kind if identifier.startswith(f"sha256:{title}") else title  # a blob's title is its digest
        return f"{named} {identifier}".strip()
    return shorten(identifier) + (f" ({kind.removesuffix('s')})" if kind else "")
