"""JSON: read from anybody, and written canonically: equal values give equal bytes, hence equal digests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from boardwright.content.errors import InvalidContent


def read_json(data: str | bytes) -> Any:
    """Read JSON that others wrote; as lenient as `json.loads`, which takes NaN (`canonical_json` does not).

    Raises:
        ValueError: it is no JSON, or lists and objects lie in one another too deep to be read.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def canonical_json(value: Any) -> bytes:
    """Encode a JSON value: sorted keys, no spaces, UTF-8, no NaN or infinity.

    Tuples are written as lists. Integers are exact; floats take Python's shortest form that reads back equal.

    Raises:
        InvalidContent: the value has a key that is no string, a number that JSON lacks, a type that JSON
            lacks, or text that is no Unicode.
    """
    try:
        _check_keys(value, "$")
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except InvalidContent:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidContent(f"this value has no canonical JSON: {error}") from error


def _check_keys(value: Any, where: str) -> None:
    # json.dumps writes the keys 1 and "1" alike, which would give two values one digest.
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidContent(f"the key {key!r} at {where} must be a string")
            _check_keys(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_keys(item, f"{where}[{index}]")
