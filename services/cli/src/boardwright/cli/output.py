"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, TypeVar

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

M = TypeVar("M", bound="Message")

_UNLIMITED_WIDTH = 10_000
_PAGE_WIDTH = 120
_LONGEST_WORD = 20
"""Words up to this length are not broken to make a table narrower."""


class Format(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="table for people, json for programs.")]


def print_json(value: Any) -> None:
    """Print a JSON document on standard output, escaping what its encoding lacks."""
    every_character = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not every_character) + "\n")


def document(message: Message) -> dict[str, Any]:
    """A message as JSON; fields that hold JSON text (`spec_json`) are opened up."""
    from boardwright.rpc.documents import to_document

    opened: dict[str, Any] = _opened(to_document(message))
    return opened


def _opened(value: Any) -> Any:
    if isinstance(value, list):
        return [_opened(item) for item in value]
    if not isinstance(value, dict):
        return value
    held: dict[str, Any] = {}
    for key, item in value.items():
        if key.endswith("_json") and isinstance(item, str):
            held[key.removesuffix("_json")] = json.loads(item) if item else None
        else:
            held[key] = _opened(item)
    return held


def print_message(message: Message, output: Format, rows: Iterable[tuple[str, str]]) -> None:
    """Print one resource: as JSON, or the given rows of name and value."""
    if output is Format.JSON:
        print_json(document(message))
    else:
        print_details(rows)


def print_messages(
    messages: Iterable[M],
    output: Format,
    columns: Sequence[str],
    row: Callable[[M], Sequence[str]],
    *,
    empty: str,
    where: str = "",
    limit: int = 0,
) -> None:
    """Print a list: as a JSON array, or a table with `row(message)` for each.

    Args:
        empty: what to say when there is none.
        where, limit: the filter and the bound that the list was asked with, of which a person is reminded.
    """
    found = list(messages)
    if output is Format.JSON:
        print_json([document(message) for message in found])
    elif found:
        print_table(columns, [row(message) for message in found])
    else:
        say(f"Nothing meets the filter {where}" if where else empty)
    if limit and len(found) == limit:
        say(f"These are {limit}, as many as --limit allows; there may be more (--limit 0 for all).")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table. Columns whose name begins with ">" are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = [[for_people(cell) for cell in row] for row in rows]
    headings = [column.lstrip(">") for column in columns]
    terminal = get_terminal_size().columns if sys.stdout.isatty() else None
    widths = _widths([headings, *cells], columns, terminal or _UNLIMITED_WIDTH)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        pad_edge=False,
        collapse_padding=terminal is not None,
    )
    for column, heading, width in zip(columns, headings, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(heading, justify=justify, overflow="fold", width=width if terminal else None)
    for row in cells:
        table.add_row(*(_escaped(cell) for cell in row))
    Console(width=terminal or _UNLIMITED_WIDTH, highlight=False).print(table)


def _widths(rows: Sequence[Sequence[str]], columns: Sequence[str], terminal: int) -> list[int]:
    """How wide each column is: the widest texts are broken between words until the table fits.

    Names, which stand in the first column, and numbers are broken only where nothing else is left to break.
    """
    from rich.cells import cell_len

    texts = list(zip(*rows, strict=True))
    widths = [max(cell_len(text) for text in column) for column in texts]
    words = [max((cell_len(word) for text in column for word in text.split()), default=1) for column in texts]
    whole = [
        width if not number or column.startswith(">") else min(word, _LONGEST_WORD)
        for number, (column, width, word) in enumerate(zip(columns, widths, words, strict=True))
    ]
    room = terminal - 2 * len(columns)
    for least in (whole, [1] * len(columns)):
        while sum(widths) > room and any(now > low for now, low in zip(widths, least, strict=True)):
            over = [now if now > low else 0 for now, low in zip(widths, least, strict=True)]
            widths[over.index(max(over))] -= 1
    return widths


def print_notes(notes: Mapping[str, str]) -> None:
    """Print sentences under the names that they belong to, as wide as the terminal or as a page."""
    for name, text in notes.items():
        sys.stdout.write(f"{name}:\n{indented(text, 2, sys.stdout)}\n")


def indented(text: str, spaces: int, stream: TextIO) -> str:
    """Sentences behind so many spaces, in lines as wide as the stream's terminal or as a page."""
    import textwrap

    margin = " " * spaces
    return textwrap.fill(
        for_people(text),
        max(get_terminal_size().columns if stream.isatty() else _PAGE_WIDTH, spaces + 20),
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_details(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values below one another; empty values are left out."""
    shown = [(name, value) for name, value in rows if value]
    widest = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        lines = for_people(value).split("\n")
        sys.stdout.write(f"{name:<{widest}}  {lines[0]}\n")
        for line in lines[1:]:
            sys.stdout.write(f"{'':<{widest}}  {line}\n")


def say(text: str) -> None:
    """Tell a person something that is not the result: on standard error."""
    sys.stderr.write(for_people(text) + "\n")


def for_people(text: str) -> str:
    """A text as it is shown: with digits@3, not with projects/default/models/digits/versions/3."""
    from boardwright.client.references import shorten_names

    return shorten_names(text)


def _escaped(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)


def moment(timestamp: Timestamp) -> str:
    """A timestamp in local time, "" when unset."""
    if not timestamp.seconds:
        return ""
    return timestamp.ToDatetime().astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(size_bytes: float) -> str:
    """A size in the unit that suits it: "12.3 kB"."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def state(message: Message, field: str = "state") -> str:
    """An enum field in words: STATE_RUNNING → "running"."""
    descriptor: Any = message.DESCRIPTOR.fields_by_name[field].enum_type
    name = str(descriptor.values_by_number[getattr(message, field)].name)
    prefix = field.upper() + "_"
    return name.removeprefix(prefix).lower().replace("_", " ")
