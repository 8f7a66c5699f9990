"""The `Database` port: transactions as functions, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from boardwright.database.transaction import Dialect, Transaction

T = TypeVar("T")


class Database(ABC):
    """A service's own database.

    `write` and `read` each run one synchronous function in one transaction with serializable semantics:
    what is right on one database is right on the other. An exception from the function rolls back and
    reaches the caller unchanged.
    """

    dialect: Dialect
    url: str
    schema: str

    @staticmethod
    def open(url: str, *, schema: str, migrations: str) -> Database:
        """Make the database for `url`; connections are opened when first used.

        `url` is "sqlite:///absolute/path.db" or "postgresql://user@host:port/name". `schema` names the
        PostgreSQL schema (SQLite has one file per service instead). `migrations` is the Alembic script
        location as "package.module:folder", for example "boardwright.registry:storage/migrations".

        Raises: ValueError for any other URL.
        """
        if url.startswith("sqlite:///"):
            from boardwright.database.sqlite import SqliteDatabase

            return SqliteDatabase(url, schema=schema, migrations=migrations)
        if url.startswith(("postgresql://", "postgres://")):
            from boardwright.database.postgresql import PostgresqlDatabase

            return PostgresqlDatabase(url, schema=schema, migrations=migrations)
        raise ValueError(
            f"not a database URL: {url.split('@')[-1]!r}; use sqlite:///absolute/path.db or postgresql://user@host/name"
        )

    def __init__(self, url: str, *, schema: str, migrations: str) -> None:
        self.url = url
        self.schema = schema
        self.migrations = migrations

    @abstractmethod
    async def write(self, fn: Callable[[Transaction], T], /, *, key: str = "") -> T:
        """Run `fn` in one transaction; return its result once the commit is durable.

        `key` names what the function contends for (a model's name). Writes with the same key from this
        process run one after the other, which on PostgreSQL spares them serialization failures.

        Raises: DatabaseUnavailable, ConstraintViolation (UniqueViolation among them); what `fn` raises.
        """

    @abstractmethod
    async def read(self, fn: Callable[[Transaction], T], /, *, snapshot: bool = True) -> T:
        """Run `fn` in one read-only transaction on one snapshot; return its result.

        `fn` may run twice, and in another thread: it must have no effects. A read that takes long holds up
        no other call.

        `snapshot=False` is for a function that runs a single statement, which is consistent by itself; it
        saves the transaction around it where that costs something.

        Raises: DatabaseUnavailable; QueryTooLong; and what `fn` raises.
        """

    @abstractmethod
    def stored_revision(self) -> str | None:
        """The migration that the database is at; None before the first. Raises: DatabaseUnavailable."""

    @abstractmethod
    def close(self) -> None:
        """Finish queued writes and close every connection. Calling it twice is fine."""

    def migrate(self, *, in_process: bool = False) -> bool:
        """Bring the schema to the newest migration; return whether there was anything to do.

        Alembic and SQLAlchemy are loaded only when there is, and then in a process of their own, so that
        a service stays small; `in_process` runs them here (tests).

        Raises: DatabaseUnavailable, DatabaseOutdated (the stored revision is unknown to this code).
        """
        from boardwright.database import migrating

        return migrating.migrate(self, in_process=in_process)
