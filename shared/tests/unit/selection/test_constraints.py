"""Constraints as people write them."""

from __future__ import annotations

import pytest

from boardwright.selection import Constraints


def test_constraints_are_read_in_the_units_of_their_names():
    found = Constraints.parse("max-drop=0.5, max-latency-ms=10,max-size-mb=4,max-memory-mb=100")
    assert found == Constraints(0.5, 10.0, 4e6, 1e8)
    assert Constraints.parse("max-latency-ms=33,statistic=p50,threads=0") == Constraints(
        max_latency_ms=33.0, statistic="p50", threads=0
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max-drop=1",
        "max-drop=0.5,max-latency-ms=10,statistic=p50,threads=0,max-size-mb=4.5,max-memory-mb=99",
    ],
)
def test_what_is_said_is_read_back(text):
    found = Constraints.parse(text)
    assert not text or Constraints.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max-drp=1", "did you mean 'max-drop'"),
        ("max-drop", "each =value"),
        ("max-drop=much", "'much' is not a number"),
        ("max-drop=-1", "must be 0 or more"),
        ("max-drop=nan", "must be 0 or more"),
        ("max-drop=1,max-drop=2", "written twice"),
        ("statistic=mean", "none of p50, p95"),
        ("threads=3", "others are not measured"),
    ],
)
def test_what_cannot_be_read_is_told(text, words):
    with pytest.raises(ValueError, match=words):
        Constraints.parse(text)
