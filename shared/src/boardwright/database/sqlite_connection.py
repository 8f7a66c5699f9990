"""A connection to a SQLite file: its settings, transactions on it, its errors as the database's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from boardwright.database.errors import (
    ConstraintViolation,
    DatabaseFull,
    DatabaseUnavailable,
    ForeignKeyViolation,
    UniqueViolation,
    ValueRefused,
)
from boardwright.database.transaction import Row, Transaction

_STATEMENT_CACHE = 512
_BUSY_TIMEOUT_MS = 10_000


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for use by one thread at a time; WAL, durable commits. Raises: as `translate`."""
    connection = None
    try:
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENT_CACHE,
            timeout=_BUSY_TIMEOUT_MS / 1000,
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA temp_store=MEMORY")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise translate(error) from error
    return connection


class SqliteTransaction(Transaction):
    """A transaction on one `sqlite3.Connection`."""

    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def execute(self, sql: str, /, **params: Any) -> int:
        return self._connection.execute(sql, params).rowcount

    def one(self, sql: str, /, **params: Any) -> Row | None:
        cursor = self._connection.execute(sql, params)
        row = cursor.fetchone()
        cursor.close()
        return cast("Row | None", row)

    def all(self, sql: str, /, **params: Any) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]], /) -> None:
        self._connection.executemany(sql, rows)


def translate(error: sqlite3.Error | OverflowError) -> Exception:
    """The `boardwright.database` error that says the same; a programming mistake stays as it is."""
    if isinstance(error, OverflowError):
        return ValueRefused("a value cannot be stored or compared: a number needs more than 64 bits")
    name = getattr(error, "sqlite_errorname", "") or ""
    text = str(error)
    if name.startswith("SQLITE_CONSTRAINT"):
        columns = text.partition(": ")[2]
        table = columns.partition(".")[0] if "." in columns else ""
        if name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"):
            return UniqueViolation(columns, table)
        if name == "SQLITE_CONSTRAINT_FOREIGNKEY":
            return ForeignKeyViolation(columns, table)
        return ConstraintViolation(columns or text, table)
    if name.startswith("SQLITE_FULL"):
        return DatabaseFull("the disk under the SQLite file is full; free space, then repeat the call")
    if name.startswith(
        ("SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_LOCKED")
    ):
        return DatabaseUnavailable(f"SQLite cannot use its file now ({text}); the call can be repeated")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DatabaseUnavailable(f"the SQLite file is damaged ({text}); restore it from a backup")
    return error
