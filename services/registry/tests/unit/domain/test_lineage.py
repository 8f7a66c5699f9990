from hypothesis import given
from hypothesis import strategies as st

from boardwright.registry.domain.lineage import Edge, walk


def over(edges):
    """`edges_of` over a list of pairs."""

    def edges_of(ids, direction):
        found = [Edge(a, b, "x") for a, b in edges]
        return [e for e in found if (e.to_id if direction == "ancestors" else e.from_id) in ids]

    return edges_of


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
