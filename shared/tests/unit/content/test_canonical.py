from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boardwright.content import InvalidContent, canonical_json, read_json

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)  # lone surrogates are no Unicode
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES)
def test_reads_back_and_stays_the_same(value: Any) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data


def test_order_and_spaces() -> None:
    assert canonical_json({"b": (1, 2.5, "ü"), "a": None}) == '{"a":null,"b":[1,2.5,"ü"]}'.encode()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({1: 2}, r"the key 1 at \$"),
        ({"a": [{"b": {None: 1}}]}, r"the key None at \$.a\[0\].b"),
        (float("nan"), "no canonical JSON"),
        ([float("inf")], "no canonical JSON"),
        ({"a": b"bytes"}, "no canonical JSON"),
        ({"a": {1, 2}}, "no canonical JSON"),
        ("\ud800", "no canonical JSON"),
    ],
)
def test_what_json_lacks(value: Any, where: str) -> None:
    with pytest.raises(InvalidContent, match=where):
        canonical_json(value)


def test_what_is_nested_too_deep_is_no_value_to_read_or_write() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        read_json("[" * 100_000)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidContent, match="no canonical JSON"):
        canonical_json(deep)
