"""Options of `boardwright` itself, taken behind the command as well: `boardwright up --data FOLDER`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from typer.core import TyperGroup


class AnyOrder(TyperGroup):
    """A group whose own options may stand anywhere, except where a command has one of that name itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with options of this group moved before the command."""
        ours = {name for option in self.params for name in _valued(option)}
        return super().parse_args(ctx, moved(args, ours, self))


def moved(args: Sequence[str], ours: Collection[str], group: Any) -> list[str]:
    """The arguments with the options `ours` before the command that `group` has for them.

    Options that the command knows itself, and whatever follows "--", stay where they are.
    """
    start = _command_at(args, ours)
    command, position = group, start
    while position < len(args) and hasattr(command, "commands") and args[position] in command.commands:
        command = command.commands[args[position]]
        position += 1
    theirs = {name for option in getattr(command, "params", ()) for name in option.opts}
    before, behind = list(args[:start]), list[str]()
    rest = iter(args[start:])
    for argument in rest:
        name, joined, _ = argument.partition("=")
        if argument == "--":
            behind += [argument, *rest]
        elif name not in ours or name in theirs:
            behind.append(argument)
        else:
            before += [argument] if joined else [argument, *_next(rest)]
    return before + behind


def _command_at(args: Sequence[str], ours: Collection[str]) -> int:
    """Where the command stands: the first argument that is no option and no option's value."""
    position = 0
    while position < len(args) and args[position].startswith("-"):
        position += 2 if args[position] in ours else 1
    return position


def _next(rest: Any) -> list[str]:
    value = next(rest, None)
    return [] if value is None else [value]


def _valued(option: Any) -> list[str]:
    return (
        [] if getattr(option, "is_flag", False) else [name for name in option.opts if name.startswith("--")]
    )
