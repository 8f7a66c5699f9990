from __future__ import annotations

from boardwright.api.registry.v1.registry_pb2 import Lineage
from boardwright.cli.tree import tree_lines

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def test_a_tree_names_roles_and_shows_nothing_twice() -> None:
    graph = Lineage(
        nodes=[
            Lineage.Node(id="projects/p/models/m/versions/1", kind="versions"),
            Lineage.Node(id=A, kind="blob"),
            Lineage.Node(id=B, kind="step", title="compile/quantize"),
            Lineage.Node(id=C, kind="blob"),
        ],
        edges=[
            Lineage.Edge(from_id=B, to_id=A, role="model.onnx"),
            Lineage.Edge(from_id=C, to_id=B, role="checkpoint"),
            Lineage.Edge(from_id=C, to_id=A, role="again"),
        ],
    )
    assert tree_lines(graph, A, up=True) == [
        "blob sha256:aaaaaaaaaaaa",
        "├─ model.onnx: compile/quantize sha256:bbbbbbbbbbbb",
        "│  └─ checkpoint: blob sha256:cccccccccccc",
        "└─ again: blob sha256:cccccccccccc …",
    ]
    assert tree_lines(graph, C, up=False)[1].startswith("├─ checkpoint: compile/quantize")


def test_a_cycle_ends() -> None:
    edges = [Lineage.Edge(from_id=A, to_id=B), Lineage.Edge(from_id=B, to_id=A)]
    assert len(tree_lines(Lineage(edges=edges), A, up=True)) == 3
