"""Page tokens and page sizes (AIP-158), for keyset pagination.

A token holds the last row's key and a hash of what was listed (parent, filter, order): a token of another
list is refused instead of giving a wrong page. It is opaque, not secret: it grants nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from boardwright.content.canonical import read_json
from boardwright.database.transaction import Row
from boardwright.rpc.errors import InvalidArgument

T = TypeVar("T")

DEFAULT_SIZE = 50
MAX_SIZE = 1000
_MOST_CHARACTERS = 3 << 20
"""Of four bytes each at most; a message has 16 MiB."""

Key = list[int | str]


def page_size(asked: int) -> int:
    """The size to use: 0 gives 50, 1000 at most. Raises: InvalidArgument FIELD_INVALID if negative."""
    if asked < 0:
        raise InvalidArgument("FIELD_INVALID", "page_size must not be negative", field="page_size")
    return min(asked, MAX_SIZE) or DEFAULT_SIZE


def _hash(scope: Sequence[str]) -> str:
    return hashlib.sha256("\x00".join(scope).encode()).hexdigest()[:16]


def encode(key: Sequence[int | str], *scope: str) -> str:
    """A token that continues after the row with `key` in the list that `scope` describes."""
    text = json.dumps([_hash(scope), *key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(token: str, *scope: str, kinds: Sequence[type] = (int,)) -> Key | None:
    """The key to continue after, a value of each of `kinds`; None for the first page.

    Raises: InvalidArgument PAGE_TOKEN_MISMATCH.
    """
    if not token:
        return None
    try:
        hash_, *key = read_json(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, TypeError):
        hash_, key = "", []
    fits = len(key) == len(kinds) and all(map(_fits, key, kinds))
    if hash_ != _hash(scope) or not fits:
        raise InvalidArgument(
            "PAGE_TOKEN_MISMATCH", "the page token is not of this list (same parent and filter); start again"
        )
    return list(key)


def _fits(value: object, kind: type) -> bool:
    """Whether a database can compare a column of this kind with the value; anybody can make up a token."""
    if type(value) is not kind:
        return False
    return (
        "\x00" not in value
        if isinstance(value, str)
        else isinstance(value, int) and -(2**63) <= value < 2**63
    )


def fitting(rows: Sequence[Row], size: int) -> int:
    """How many rows a page of at most `size` has: as many as fit into one message, but one at least."""
    held = 0
    for number, row in enumerate(rows[:size]):
        held += sum(len(value) for name in row.keys() if isinstance(value := row[name], str))  # noqa: SIM118
        if number and held > _MOST_CHARACTERS:
            return number
    return size


def cut(rows: Sequence[T], size: int, key: Callable[[T], Sequence[Any]], *scope: str) -> tuple[list[T], str]:
    """A page and the token of the next, from up to `size + 1` rows."""
    if len(rows) <= size:
        return list(rows), ""
    page = list(rows[:size])
    return page, encode(key(page[-1]), *scope)
