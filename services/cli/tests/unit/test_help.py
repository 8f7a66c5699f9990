"""Every command explains itself with an example that parses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from boardwright.cli.app import app

_EXAMPLE = re.compile(r"Example:\n((?:\s+\S.*\n?)+)")
_TERMINAL_COLUMNS = 80 - len("  ")
"""A terminal's, less what the help indents the text by."""


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_commands(get_command(app)))


def test_all_commands_are_there() -> None:
    wanted = {
        "push", "compile", "build", "measure", "optimize", "release", "promote", "show", "ls", "lineage",
        "history", "report", "doctor", "login", "up", "status", "down", "demo",
    }  # fmt: skip
    groups = {"dataset", "rollout", "fleet", "device", "job", "gate", "token"}
    assert {path[0] for path in COMMANDS} == wanted | groups


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example_that_the_command_takes(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    found = _EXAMPLE.search(command.help + "\n")
    assert found is not None, f"{' '.join(path)} has no example"
    assert all(len(line) <= _TERMINAL_COLUMNS for line in found[1].splitlines())
    lines = [line.strip() for line in found[1].replace("\\\n", "").splitlines() if line.strip()]
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "boardwright"
        if words[1].startswith("--"):
            words = words[:1] + words[3:]  # --data FOLDER goes before the command
        if "<" in words:
            words = words[: words.index("<")]
        assert tuple(words[1 : 1 + len(path)]) == path
        command.make_context(" ".join(path), words[1 + len(path) :])


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_prints_json_when_asked(path: tuple[str, ...]) -> None:
    assert any("-o" in parameter.opts for parameter in COMMANDS[path].params)


def test_the_overview_fits_a_narrow_terminal() -> None:
    printed = CliRunner().invoke(app, ["--help"], terminal_width=80).output
    assert [line for line in printed.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_what_is_off_by_default_has_no_option_to_put_it_off(path: tuple[str, ...]) -> None:
    two_ways = [option for option in COMMANDS[path].params if option.secondary_opts]
    assert [option.name for option in two_ways if option.default is False] == []


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["push"], ["push", "m", "f", "--nope"], ["ls", "-o", "yaml"], ["job", "show"]]
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
