from __future__ import annotations

import pytest
import typer

from boardwright.cli import parsing


def test_pairs_and_numbers() -> None:
    assert parsing.pairs(["a=1", "b=x=y"], "--label") == {"a": "1", "b": "x=y"}
    assert parsing.numbers(["top1=0.97"], "--metric") == {"top1": 0.97}
    assert parsing.pairs(None, "--label") == {}


@pytest.mark.parametrize("entry", ["a", "=1"])
def test_what_is_no_pair_is_named(entry: str) -> None:
    with pytest.raises(typer.BadParameter, match="key=value"):
        parsing.pairs([entry], "--label")


def test_what_is_no_number_is_named() -> None:
    with pytest.raises(typer.BadParameter, match="high"):
        parsing.numbers(["top1=high"], "--metric")


def test_datasets_by_role() -> None:
    assert parsing.datasets("c", "e", ["tuning=t"]) == {"calibration": "c", "evaluation": "e", "tuning": "t"}
