"""Options of `boardwright` itself stand before the command or behind it."""

from __future__ import annotations

import pytest
from typer.main import get_command

from boardwright.cli.app import app
from boardwright.cli.ordering import moved

OURS = {"--data", "--endpoint", "--token", "--project"}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("up --detach --data d", "--data d up --detach"),
        ("--data d up --detach", "--data d up --detach"),
        ("dataset ls --project=p digits", "--project=p dataset ls digits"),
        ("--project p ls --data d", "--project p --data d ls"),
        ("login host:1 --token t", "login host:1 --token t"),  # its own
        ("job logs x -- --data d", "job logs x -- --data d"),
        ("up --data", "--data up"),  # told as a missing value
        ("--version", "--version"),
        ("", ""),
    ],
)
def test_options_move_before_the_command_unless_they_are_its_own(given: str, taken: str) -> None:
    assert moved(given.split(), OURS, get_command(app)) == taken.split()


def test_the_group_of_all_commands_does_so() -> None:
    group = get_command(app)
    context = group.make_context("boardwright", ["status", "--data", "somewhere"], resilient_parsing=True)
    assert str(context.params["data"]) == "somewhere"
