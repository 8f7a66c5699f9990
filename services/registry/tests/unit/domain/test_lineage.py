from hypothesis import given
from hypothesis import strategies as st

from boardwright.registry.domain.lineage import RECORD, Edge, file_edge, walk


def over(pairs):
    """`edges_of` over a list of pairs."""
    return over_edges([Edge(a, b, "x") for a, b in pairs])


def digest(letter):
    return "sha256:" + letter * 64


def over_edges(edges):
    """`edges_of` over edges."""

    def edges_of(ids, direction):
        return [e for e in edges if (e.to_id if direction == "ancestors" else e.from_id) in ids]

    return edges_of


# Two steps, of inputs of their own, made the same settings file; each made a resource that holds it.
ONE, TWO = "projects/p/models/m/versions/1/variants/one", "projects/p/models/m/versions/2/variants/two"
STEP_1, STEP_2, INPUT_1, INPUT_2, SETTINGS = map(digest, "12345")
EQUAL = [
    Edge(INPUT_1, STEP_1, "graph"),
    Edge(INPUT_2, STEP_2, "graph"),
    Edge(STEP_1, SETTINGS, "settings"),
    Edge(STEP_2, SETTINGS, "settings"),
    Edge(SETTINGS, ONE, "settings"),
    Edge(SETTINGS, TWO, "settings"),
    Edge(STEP_1, ONE, RECORD),
    Edge(STEP_2, TWO, RECORD),
]


def test_a_resources_own_step_counts_and_not_one_that_made_equal_bytes():
    of_one = walk(ONE, ["ancestors"], over_edges(EQUAL))
    assert set(of_one.nodes) == {ONE, SETTINGS, STEP_1, INPUT_1}
    assert Edge(STEP_2, SETTINGS, "settings") not in of_one.edges
    both = walk(
        "release", ["ancestors"], over_edges([*EQUAL, Edge(ONE, "release", "a"), Edge(TWO, "release", "b")])
    )
    assert {STEP_1, STEP_2, INPUT_1, INPUT_2} < set(both.nodes)


def test_a_step_that_changed_nothing_does_not_hide_what_its_input_was_made_of():
    same = [
        Edge(INPUT_1, STEP_1, "checkpoint"),
        Edge(STEP_1, SETTINGS, "graph"),
        Edge(SETTINGS, STEP_2, "graph"),
        Edge(STEP_2, SETTINGS, "graph"),
        Edge(SETTINGS, ONE, "graph"),
        Edge(STEP_2, ONE, RECORD),
    ]
    assert set(walk(ONE, ["ancestors"], over_edges(same)).nodes) == {ONE, SETTINGS, STEP_1, STEP_2, INPUT_1}


def test_a_resource_does_not_descend_from_what_only_led_to_equal_bytes():
    assert set(walk(INPUT_1, ["descendants"], over_edges(EQUAL)).nodes) == {INPUT_1, STEP_1, SETTINGS, ONE}
    onward = [*EQUAL, Edge(TWO, "release", "b")]
    assert "release" not in walk(STEP_1, ["descendants"], over_edges(onward)).nodes


def test_of_bytes_that_were_asked_for_all_producers_and_holders_are_given():
    around = walk(SETTINGS, ["ancestors", "descendants"], over_edges(EQUAL))
    assert set(around.nodes) == {SETTINGS, STEP_1, STEP_2, INPUT_1, INPUT_2, ONE, TWO}


def test_a_resource_without_a_record_keeps_all_that_made_its_bytes():
    unnamed = [edge for edge in EQUAL if edge.role != RECORD]
    assert {STEP_1, STEP_2} < set(walk(ONE, ["ancestors"], over_edges(unnamed)).nodes)
    assert {ONE, TWO} < set(walk(INPUT_1, ["descendants"], over_edges(unnamed)).nodes)


def test_a_file_that_is_called_record_is_no_record():
    held = [file_edge(SETTINGS, holder, RECORD) for holder in (ONE, TWO)]
    assert set(walk(INPUT_1, ["descendants"], over_edges([*EQUAL[:4], *held])).nodes) >= {ONE, TWO}
    assert file_edge(SETTINGS, ONE, "a/record") == Edge(SETTINGS, ONE, "a/record")
    assert RECORD not in {edge.role for edge in held}


DIAMOND = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e")]


def test_ancestors_and_descendants():
    assert set(walk("d", ["ancestors"], over(DIAMOND)).nodes) == {"a", "b", "c", "d"}
    assert set(walk("d", ["descendants"], over(DIAMOND)).nodes) == {"d", "e"}
    both = walk("d", ["ancestors", "descendants"], over(DIAMOND))
    assert len(both.edges) == 5
    assert not both.truncated


def test_depth_cuts_and_says_so():
    graph = walk("e", ["ancestors"], over(DIAMOND), depth=1)
    assert set(graph.nodes) == {"e", "d"}
    assert graph.truncated
    assert not walk("e", ["ancestors"], over(DIAMOND), depth=3).truncated


def test_size_cuts_and_says_so():
    wide = [("a", f"n{i}") for i in range(100)]
    graph = walk("a", ["descendants"], over(wide), max_nodes=10)
    assert len(graph.nodes) == 10
    assert graph.truncated


def test_a_node_without_edges_stands_alone():
    assert walk("x", ["ancestors", "descendants"], over(DIAMOND)).nodes == ("x",)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=60), st.integers(0, 12))
def test_what_is_reached_is_the_closure_cycles_included(pairs, start):
    edges = [(str(a), str(b)) for a, b in pairs]
    expected, frontier = {str(start)}, [str(start)]
    while frontier:
        node = frontier.pop()
        for a, b in edges:
            if a == node and b not in expected:
                expected.add(b)
                frontier.append(b)
    graph = walk(str(start), ["descendants"], over(edges), depth=50)
    assert set(graph.nodes) == expected
    assert not graph.truncated
