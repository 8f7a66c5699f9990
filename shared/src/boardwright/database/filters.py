"""Filters (a subset of AIP-160) to SQL.

    task = "detection" AND create_time > "2026-01-01T00:00:00Z"
    labels.team = "edge" OR NOT format = onnx            a label's value; NOT and "-" negate
    labels:team          commit:"3f2a"                   has the label; contains the text
    state = failed       state != "STATE_FAILED"         one of an enum's, with or without its prefix

Comparisons are = != < <= > >= and : (has). OR binds tighter than AND, as AIP-160 has it. Values become
parameters; field names come from the declared map alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn

from boardwright.database.transaction import Dialect
from boardwright.rpc.errors import InvalidArgument

Kind = Literal["string", "number", "time", "boolean", "map"]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<operator><=|>=|!=|=|<|>|:)"""
    r"""|(?P<mark>[()])|(?P<word>-?[^\s"'()<>=!:]+))"""
)
_MAX_LENGTH = 2000
_MAX_DEPTH = 30


@dataclass(frozen=True, slots=True)
class Field:
    """How a field of the API is stored. `map` is a TEXT column of a JSON object of strings.

    `values` are an enum's, as they are stored; () for any text.
    """

    column: str
    kind: Kind = "string"
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A WHERE condition and its parameters (named f0, f1, …)."""

    sql: str
    parameters: dict[str, Any]


def to_condition(text: str, fields: Mapping[str, Field], dialect: Dialect) -> Condition:
    """Translate a filter; "" gives "1 = 1". Raises: InvalidArgument FILTER_INVALID, with the position."""
    if not text.strip():
        return Condition("1 = 1", {})
    if len(text) > _MAX_LENGTH:
        raise InvalidArgument("FILTER_INVALID", f"the filter is longer than {_MAX_LENGTH} characters")
    parser = _Parser(text, fields, dialect)
    return Condition(parser.parse(), parser.parameters)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


class _Parser:
    """Recursive descent: sequence of AND, of OR, of optional NOT, of comparison or parentheses."""

    def __init__(self, text: str, fields: Mapping[str, Field], dialect: Dialect) -> None:
        self._text = text
        self._fields = fields
        self._dialect = dialect
        self._tokens = self._tokenize()
        self._next = 0
        self._depth = 0
        self.parameters: dict[str, Any] = {}

    def parse(self) -> str:
        sql = self._and()
        if self._peek().kind != "end":
            self._fail(f"unexpected {self._peek().text!r}")
        return sql

    def _tokenize(self) -> list[_Token]:
        tokens, position = [], 0
        while self._text[position:].strip():
            match = _TOKEN.match(self._text, position)
            if match is None or match.lastgroup is None:
                self._fail("a quote is not closed or a character is out of place", position)
            tokens.append(_Token(match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
            position = match.end()
        return [*tokens, _Token("end", "", len(self._text))]

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _fail(self, what: str, position: int | None = None) -> NoReturn:
        at = self._peek().position if position is None else position
        raise InvalidArgument(
            "FILTER_INVALID", f"{what}, at character {at + 1} of the filter", position=str(at + 1)
        )

    def _is_word(self, text: str) -> bool:
        return self._peek().kind == "word" and self._peek().text == text

    def _and(self) -> str:
        terms = [self._or()]
        while self._is_word("AND"):
            self._take()
            terms.append(self._or())
        return terms[0] if len(terms) == 1 else "(" + " AND ".join(terms) + ")"

    def _or(self) -> str:
        terms = [self._term()]
        while self._is_word("OR"):
            self._take()
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else "(" + " OR ".join(terms) + ")"

    def _term(self) -> str:
        token = self._peek()
        if self._is_word("NOT"):
            self._take()
            return f"NOT ({self._simple()})"
        if token.kind == "word" and token.text.startswith("-") and len(token.text) > 1:
            self._tokens[self._next] = _Token("word", token.text[1:], token.position + 1)
            return f"NOT ({self._simple()})"
        return self._simple()

    def _simple(self) -> str:
        if self._peek().text == "(" and self._peek().kind == "mark":
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                self._fail("too many parentheses")
            self._take()
            sql = self._and()
            if self._take().text != ")":
                self._fail("a parenthesis is not closed")
            self._depth -= 1
            return sql
        return self._comparison()

    def _comparison(self) -> str:
        name = self._take()
        if name.kind != "word":
            self._fail("a field name is expected", name.position)
        operator = self._take()
        if operator.kind != "operator":
            self._fail(f"a comparison (= != < <= > >= :) is expected after {name.text}", operator.position)
        value = self._take()
        if value.kind not in ("word", "string"):
            self._fail("a value is expected", value.position)
        text = re.sub(r"\\(.)", r"\1", value.text[1:-1]) if value.kind == "string" else value.text
        base, _, key = name.text.partition(".")
        field = self._fields.get(base)
        if field is None or (key and field.kind != "map"):
            near = difflib.get_close_matches(name.text, self._fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(self._fields))}"
            self._fail(f"{name.text} is not a field of this list ({hint})", name.position)
        if field.kind == "map":
            return self._map(field, key, operator, text)
        return self._scalar(field, operator, text, value.position)

    def _bind(self, value: Any) -> str:
        name = f"f{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"

    def _scalar(self, field: Field, operator: _Token, text: str, position: int) -> str:
        sign = "<>" if operator.text == "!=" else operator.text
        if field.values:
            stored = self._stored(field, text, position)
            return f"{field.column} {'=' if sign == ':' else sign} {self._bind(stored)}"
        if field.kind == "string":
            if sign == ":":
                escaped = re.sub(r"([\\%_])", r"\\\1", text)
                return f"{field.column} LIKE {self._bind(f'%{escaped}%')} ESCAPE '\\'"
            return f"{field.column} {sign} {self._bind(text)}"
        if sign == ":":
            self._fail("`:` is for texts and labels; use =", operator.position)
        return f"{field.column} {sign} {self._bind(self._value(field.kind, text, position))}"

    def _stored(self, field: Field, text: str, position: int) -> str:
        """How an enum's value is stored. A misspelt one would find nothing, which reads like good news."""
        wanted = text.upper()
        for value in field.values:
            if wanted == value.upper() or wanted.endswith(f"_{value.upper()}"):
                return value
        known = ", ".join(value.lower() for value in field.values)
        self._fail(f"{text!r} is none of {known}", position)

    def _value(self, kind: Kind, text: str, position: int) -> int | float:
        try:
            if kind == "number":
                return int(text) if re.fullmatch(r"-?\d{1,18}", text) else float(text)
            if kind == "boolean":
                return {"true": 1, "false": 0}[text]
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1_000_000)
        except (ValueError, KeyError, OverflowError):
            wanted = {"number": "a number", "boolean": "true or false"}.get(
                kind, "a time such as 2026-01-31T12:00:00Z"
            )
            self._fail(f"{text!r} is not {wanted}", position)

    def _map(self, field: Field, key: str, operator: _Token, text: str) -> str:
        if not key:
            if operator.text != ":":
                self._fail(f"write {field.column}.key = value, or {field.column}:key", operator.position)
            return f"{self._element(field, text)} IS NOT NULL"
        if operator.text not in ("=", "!=", ":"):
            self._fail("labels are compared with =, != or :", operator.position)
        element = self._element(field, key)
        if operator.text == ":" and text == "*":
            return f"{element} IS NOT NULL"
        if operator.text == "!=":
            return f"({element} IS NULL OR {element} <> {self._bind(text)})"
        return f"({element} IS NOT NULL AND {element} = {self._bind(text)})"

    def _element(self, field: Field, key: str) -> str:
        if self._dialect == "postgresql":
            return f"({field.column}::jsonb ->> {self._bind(key)})"
        path = '$."' + key.replace('"', "") + '"'
        return f"json_extract({field.column}, {self._bind(path)})"
