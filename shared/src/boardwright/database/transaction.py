"""What a service's storage code sees of a database: one transaction, plain SQL, named placeholders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

Dialect = Literal["sqlite", "postgresql"]

LONGEST_READ_SECONDS = 30.0


class Row(Protocol):
    """One result row: `row["column"]`, `row.keys()`, `dict(row)`. Do not iterate it directly."""

    def __getitem__(self, key: str, /) -> Any: ...

    def keys(self) -> Iterable[str]: ...


class Transaction(ABC):
    """One running transaction.

    Statements are portable SQL with `:name` placeholders; both databases cache their prepared form by the
    text, so build statements from a small number of texts. A function given to `Database.write` may run
    several times (serialization failures): besides the transaction it must have no effects; put those
    into `after_commit`. A statement that fails ends the function: the driver's error passes through it and
    reaches the caller of `write` as one of `boardwright.database`'s. Do not catch it inside (PostgreSQL runs
    no further statement after it); say ON CONFLICT instead.
    """

    dialect: Dialect

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    @abstractmethod
    def execute(self, sql: str, /, **params: Any) -> int:
        """Run a statement; return the number of rows that it changed."""

    @abstractmethod
    def one(self, sql: str, /, **params: Any) -> Row | None:
        """Run a query (or `… RETURNING`); return its first row, or None."""

    @abstractmethod
    def all(self, sql: str, /, **params: Any) -> list[Row]:
        """Run a query (or `… RETURNING`); return all its rows."""

    @abstractmethod
    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]], /) -> None:
        """Run one statement for each mapping of parameters."""

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop once this transaction is durable; never if it is not."""
        self.callbacks.append(callback)
