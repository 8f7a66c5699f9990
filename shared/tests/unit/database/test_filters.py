import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boardwright.database.filters import Field, to_condition
from boardwright.rpc.errors import InvalidArgument

FIELDS = {
    "task": Field("task"),
    "number": Field("number", "number"),
    "create_time": Field("create_us", "time"),
    "sealed": Field("sealed", "boolean"),
    "labels": Field("labels", "map"),
    "state": Field("task", values=("detection", "text")),
}
ROWS = [
    (1, "detection", 1_000_000, 0, '{"team":"edge"}'),
    (2, "text", 2_000_000, 1, "{}"),
    (3, "detection", 3_000_000, 1, '{"team":"cloud","a.b":"50%_off"}'),
]


def matches(text: str) -> list[int]:
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE TABLE t (number INTEGER, task TEXT, create_us INTEGER, sealed INTEGER, labels TEXT)"
    )
    connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", ROWS)
    condition = to_condition(text, FIELDS, "sqlite")
    found = connection.execute(
        f"SELECT number FROM t WHERE {condition.sql} ORDER BY number", condition.parameters
    ).fetchall()
    connection.close()
    return [n for (n,) in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [1, 2, 3]),
        ("task = detection", [1, 3]),
        ('task = "detection" AND number > 1', [3]),
        ("task != detection", [2]),
        ("task:tect", [1, 3]),
        ("state = detection", [1, 3]),
        ('state = "STATE_DETECTION"', [1, 3]),
        ("state != STATE_DETECTION", [2]),
        ("state:STATE_DETECTION", [1, 3]),
        ("NOT task = detection", [2]),
        ("-task = detection", [2]),
        ("number >= 2", [2, 3]),
        ("number > 1.5", [2, 3]),
        ("(number = 1 OR number = 3) AND sealed = true", [3]),
        ('create_time > "1970-01-01T00:00:01Z"', [2, 3]),
        ("create_time<=1970-01-01", []),
        ("labels.team = edge", [1]),
        ("labels.team != edge", [2, 3]),
        ("labels:team", [1, 3]),
        ("labels.team:*", [1, 3]),
        ('labels.a.b = "50%_off"', [3]),
    ],
)
def test_a_filter_selects(text, expected):
    assert matches(text) == expected


def test_or_binds_tighter_than_and():
    # AIP-160: number = 1 AND (task = text OR task = detection)
    assert matches("number = 1 AND task = text OR task = detection") == [1]


def test_percent_and_underscore_are_plain_characters_of_has():
    assert matches('task:"%"') == []
    assert matches('task:"_"') == []


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("taks = text", 1, "did you mean task?"),
        ("task text", 6, "a comparison"),
        ("task = ", 8, "a value"),
        ("(task = text", 13, "not closed"),
        ('task = "text', 7, "quote"),
        ("task = text)", 12, "unexpected"),
        ("number = many", 10, "a number"),
        ("create_time > yesterday", 15, "a time"),
        ("sealed = 1", 10, "true or false"),
        ("number:1", 7, "use ="),
        ("labels = x", 8, "labels.key"),
        ("labels.team > x", 13, "compared with"),
        ("task = text AND", 16, "a field name"),
        ("task.x = 1", 1, "not a field"),
        ("state = done", 9, "none of detection, text"),
        ("state:detect", 7, "none of detection, text"),
    ],
)
def test_a_wrong_filter_is_refused_at_its_place(text, position, words):
    with pytest.raises(InvalidArgument) as caught:
        to_condition(text, FIELDS, "sqlite")
    assert caught.value.reason == "FILTER_INVALID"
    assert words in caught.value.message
    assert caught.value.metadata["position"] == str(position)


def test_a_deep_or_long_filter_is_refused():
    for text in ("(" * 200 + "number = 1" + ")" * 200, "task = " + "x" * 3000):
        with pytest.raises(InvalidArgument):
            to_condition(text, FIELDS, "sqlite")


@given(st.text(max_size=60))
def test_no_text_breaks_out_of_the_grammar(text):
    """Any text either is refused or gives a condition that SQLite runs."""
    try:
        to_condition(text, FIELDS, "sqlite")
    except InvalidArgument:
        return
    matches(text)


@given(st.text(max_size=30))
def test_a_quoted_value_is_only_a_value(value):
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    condition = to_condition(f'task = "{escaped}"', FIELDS, "sqlite")
    assert condition.sql == "task = :f0"
    assert condition.parameters == {"f0": value}
