"""Strict JSON documents out of frozen dataclasses.

A declaration outlives the program that wrote it, and a field that a reader silently skips is a wrong result
later (a colour order, a scale). So every document carries ``schema`` ("input-spec/1"), an unknown field is an
error that names the nearest known one, and a missing field takes the default of its dataclass.
"""

import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, TypeVar, Union

from boardwright.content.canonical import read_json
from boardwright.model.errors import ModelError

T = TypeVar("T")


def to_document(value: Any, schema: str) -> dict[str, Any]:
    """The JSON object of a frozen dataclass of plain values; ``schema`` comes first."""
    document: dict[str, Any] = {"schema": schema}
    for field in fields(value):
        document[field.name] = _plain(getattr(value, field.name))
    return document


def from_document(
    cls: type[T], document: Mapping[str, Any] | str | bytes, *, schema: str, reason: str, what: str
) -> T:
    """Read a dataclass back from its JSON object or JSON text.

    Raises:
        ModelError: with ``reason``, when the text is no JSON object, the schema is another one, a field is
            unknown, missing or of the wrong type, or the dataclass's own checks refuse the values.
    """
    parsed = _parse(document, reason, what)
    found = parsed.pop("schema", schema)
    if found != schema:
        raise ModelError(reason, f"{what}: schema {found!r} is not the known {schema!r}; update this program")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for name in parsed:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known fields: {', '.join(known)}"
            raise ModelError(reason, f"{what}: unknown field {name!r}{hint}")
    for name, field in known.items():
        if name not in parsed and field.default is MISSING and field.default_factory is MISSING:
            raise ModelError(reason, f"{what}: field {name!r} is missing")
    hints = typing.get_type_hints(cls)
    values = {name: _convert(value, hints[name], f"{what}: {name}", reason) for name, value in parsed.items()}
    return cls(**values)


def _parse(document: Mapping[str, Any] | str | bytes, reason: str, what: str) -> dict[str, Any]:
    if isinstance(document, (str, bytes)):
        try:
            document = read_json(document)
        except ValueError as error:
            raise ModelError(reason, f"{what} is not JSON: {error}") from error
    if not isinstance(document, Mapping):
        raise ModelError(reason, f"{what} must be a JSON object, not {type(document).__name__}")
    return dict(document)


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list, frozenset, set)):
        items = [_plain(item) for item in value]
        return sorted(items) if isinstance(value, (set, frozenset)) else items
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _convert(value: Any, hint: Any, where: str, reason: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        choices = typing.get_args(hint)
        if value is None and type(None) in choices:
            return None
        return _convert(value, next(c for c in choices if c is not type(None)), where, reason)
    if origin in (tuple, frozenset):
        if not isinstance(value, (list, tuple)):
            raise ModelError(reason, f"{where} must be a list, not {value!r}")
        item = typing.get_args(hint)[0]
        return origin(_convert(entry, item, f"{where}[{n}]", reason) for n, entry in enumerate(value))
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ModelError(reason, f"{where} must be an object, not {value!r}")
        return dict(value)
    return _scalar(value, hint, where, reason)


def _scalar(value: Any, hint: Any, where: str, reason: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:  # NaN, infinity, and integers that no float holds
            raise ModelError(reason, f"{where} must be a finite number, not {value!r}")
        return float(value)
    plain = hint if isinstance(hint, type) else str  # Literal[...] holds strings; the dataclass checks them
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise ModelError(reason, f"{where} must be {plain.__name__}, not {value!r}")
    return value
