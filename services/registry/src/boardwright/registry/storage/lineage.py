"""The lineage graph's edges, and which digests are step records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from boardwright.database import Transaction
from boardwright.registry.domain.lineage import Direction, Edge

# How a statement takes a list of ids as one parameter.
_LISTS = {
    "sqlite": "(SELECT value FROM json_each(:ids))",
    "postgresql": "(SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))",
}
_EDGE_LIMIT = 20_000


def add_edges(tx: Transaction, project: str, edges: Iterable[Edge]) -> None:
    """Add edges; those that are there stay as they are."""
    for edge in edges:
        tx.execute(
            "INSERT INTO lineage_edges (project, from_id, to_id, role)"
            " VALUES (:project, :from_id, :to_id, :role) ON CONFLICT DO NOTHING",
            project=project,
            from_id=edge.from_id,
            to_id=edge.to_id,
            role=edge.role,
        )


def add_step(tx: Transaction, project: str, record_digest: str, kind: str, now_us: int) -> bool:
    """Remember that a digest is a step's record; False if it was known."""
    return bool(
        tx.execute(
            "INSERT INTO lineage_steps (project, record_digest, kind, create_us)"
            " VALUES (:project, :record_digest, :kind, :now) ON CONFLICT DO NOTHING",
            project=project,
            record_digest=record_digest,
            kind=kind,
            now=now_us,
        )
    )


def edges_of(tx: Transaction, project: str, ids: Sequence[str], direction: Direction) -> list[Edge]:
    """The edges that end (ancestors) or begin (descendants) at any of `ids`, in a fixed order."""
    column = "to_id" if direction == "ancestors" else "from_id"
    rows = tx.all(
        f"SELECT from_id, to_id, role FROM lineage_edges WHERE project = :project"
        f" AND {column} IN {_LISTS[tx.dialect]} ORDER BY from_id, to_id, role LIMIT :limit",
        project=project,
        ids=json.dumps(list(ids)),
        limit=_EDGE_LIMIT,
    )
    return [Edge(row["from_id"], row["to_id"], row["role"]) for row in rows]


def step_kinds(tx: Transaction, project: str, ids: Sequence[str]) -> dict[str, str]:
    """The step kinds of those of `ids` that are step records."""
    rows = tx.all(
        "SELECT record_digest, kind FROM lineage_steps WHERE project = :project"
        f" AND record_digest IN {_LISTS[tx.dialect]}",
        project=project,
        ids=json.dumps(list(ids)),
    )
    return {row["record_digest"]: row["kind"] for row in rows}
