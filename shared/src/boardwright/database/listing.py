"""Every list: a filter, a page token, and keyset pagination along an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from boardwright.database import filters, paging
from boardwright.database.transaction import Row, Transaction

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Page:
    """What a caller asked of a list: page_size, page_token and filter as they came."""

    size: int = 0
    token: str = ""
    filter: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list's table, the column that orders it (unique within any scope), and the fields of its filter.

    `descending` lists run along a number, newest first; the others along an id.
    """

    table: str
    order: str
    fields: Mapping[str, filters.Field]
    descending: bool = True

    def read(
        self,
        tx: Transaction,
        page: Page,
        convert: Callable[[Row], R],
        scope: Mapping[str, str | int],
    ) -> tuple[list[R], str]:
        """One page of the rows whose columns equal `scope`, and the token of the next ("" at the end).

        A page is smaller than asked for where its rows would not fit into one message.

        Raises: InvalidArgument FILTER_INVALID, PAGE_TOKEN_MISMATCH, FIELD_INVALID.
        """
        size = paging.page_size(page.size)
        described = (self.table, *(f"{k}={v}" for k, v in scope.items()), page.filter)
        condition = filters.to_condition(page.filter, self.fields, tx.dialect)
        where = [f"{column} = :{column}" for column in scope]
        after = paging.decode(page.token, *described, kinds=(int if self.descending else str,))
        parameters = dict(scope) | condition.parameters
        if after is not None:
            where.append(f"{self.order} {'<' if self.descending else '>'} :after")
            parameters["after"] = after[0]
        if page.filter.strip():
            where.append(condition.sql)
        rows = tx.all(
            f"SELECT * FROM {self.table} WHERE {' AND '.join(where)}"
            f" ORDER BY {self.order} {'DESC' if self.descending else 'ASC'} LIMIT :limit",
            limit=size + 1,
            **parameters,
        )
        kept, token = paging.cut(rows, paging.fitting(rows, size), lambda row: [row[self.order]], *described)
        return [convert(row) for row in kept], token
