from __future__ import annotations

from boardwright.api.registry.v1.registry_pb2 import Lineage
from boardwright.cli.tree import tree_lines

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def test_a_tree_names_roles_and_shows_nothing_twice() -> None:
    graph = Lineage(
        nodes=[
            Lineage.Node(id="projects/p/models/m/versions/1", kind="versions"),
            Lineage.Node(id=A, kind="blob", title="a" * 12),
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


def test_each_resource_shows_the_step_that_made_it_of_steps_that_made_the_same_file() -> None:
    one, two = (f"projects/p/models/m/versions/1/variants/v/artifacts/{name}" for name in ("one", "two"))
    edges = [(A, C, "settings"), (B, C, "settings")]
    edges += [(C, one, "settings"), (C, two, "settings"), (A, one, "record"), (B, two, "record")]
    edges += [(one, "release", "pi"), (two, "release", "host")]
    graph = Lineage(
        nodes=[Lineage.Node(id=C, kind="blob"), *(Lineage.Node(id=x, kind="step") for x in (A, B))],
        edges=[Lineage.Edge(from_id=a, to_id=b, role=role) for a, b, role in edges],
    )
    assert tree_lines(graph, "release", up=True)[1:] == [
        f"├─ pi: {one}",
        "│  └─ settings: blob sha256:cccccccccccc",
        "│     └─ settings: step sha256:aaaaaaaaaaaa",
        f"└─ host: {two}",
        "   └─ settings: blob sha256:cccccccccccc",
        "      └─ settings: step sha256:bbbbbbbbbbbb",
    ]


def test_a_record_that_made_no_file_is_shown_itself() -> None:
    name = "projects/p/models/m/versions/1/variants/v/measurements/m1"
    graph = Lineage(edges=[Lineage.Edge(from_id=A, to_id=name, role="record")])
    assert tree_lines(graph, name, up=True)[1].startswith("└─ record: ")
