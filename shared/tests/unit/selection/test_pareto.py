"""The front holds exactly what nothing beats."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from boardwright.selection import Point, pareto_front

figure = st.integers(0, 4).map(float)
maybe = st.one_of(st.none(), figure)
points = st.lists(st.tuples(maybe, maybe, maybe, maybe), max_size=8).map(
    lambda rows: [Point(str(number), *row) for number, row in enumerate(rows)]
)
measured = st.lists(st.tuples(figure, figure, figure, figure), max_size=8).map(
    lambda rows: [Point(str(number), *row) for number, row in enumerate(rows)]
)


def beats(ours: Point, theirs: Point) -> bool:
    pairs = list(zip(ours.costs, theirs.costs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@given(measured)
def test_what_is_left_out_is_beaten_by_the_front_and_nothing_on_the_front_is(found):
    front = set(pareto_front(found))
    on = [point for point in found if point.name in front]
    for point in found:
        assert (point.name in front) == (not any(beats(other, point) for other in found))
        assert point.name in front or any(beats(other, point) for other in on)


@given(points)
def test_there_is_always_a_front_and_no_hole_hides_a_point(found):
    front = pareto_front(found)
    assert bool(front) == bool(found)
    assert list(front) == sorted(front, key=int)
    whole = [p for p in found if None not in p.costs]
    if len(whole) < len(found):
        known = [i for i in range(4) if all(p.costs[i] is not None for p in found)]
        if not known:
            assert len(front) == len(found)


@given(measured, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(found, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert set(pareto_front(found)) == set(pareto_front(shuffled))


def test_the_more_accurate_and_the_faster_both_stay():
    found = [Point("fp32", 0.84, 6.4, 10.0), Point("int8", 0.82, 3.9, 2.7), Point("dynamic", 0.10, 18.4, 2.7)]
    assert pareto_front(found) == ("fp32", "int8")
