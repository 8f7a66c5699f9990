"""PostgreSQL: one schema per service, a few threads with a connection each, serializable and retried.

Serializable isolation gives a function the same guarantees that SQLite's single writer gives: storage code is
written once. The price, an occasional serialization failure, is paid here by running the function again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from boardwright.database.database import Database
from boardwright.database.errors import (
    ConstraintViolation,
    DatabaseClosed,
    DatabaseFull,
    DatabaseUnavailable,
    ForeignKeyViolation,
    QueryTooLong,
    UniqueViolation,
    ValueRefused,
)
from boardwright.database.placeholders import to_pyformat
from boardwright.database.transaction import LONGEST_READ_SECONDS, Row, Transaction
from boardwright.rpc.auth import current_principal
from boardwright.rpc.turns import Turns

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

_THREADS = 8
_THREADS_FOR_OTHERS = 2  # than one caller, all of whose reads may be long
_ATTEMPTS = 40
_CONNECT_TIMEOUT_SECONDS = 3
_CANCEL_TIMEOUT_SECONDS = 1
_STATEMENT_TIMEOUT_MS = round(LONGEST_READ_SECONDS * 1000)


class PostgresqlTransaction(Transaction):
    """A transaction on one psycopg connection."""

    dialect = "postgresql"

    def __init__(self, cursor: psycopg.Cursor[dict[str, Any]]) -> None:
        super().__init__()
        self._cursor = cursor

    def execute(self, sql: str, /, **params: Any) -> int:
        return self._cursor.execute(to_pyformat(sql).encode(), params).rowcount

    def one(self, sql: str, /, **params: Any) -> Row | None:
        return cast("Row | None", self._cursor.execute(to_pyformat(sql).encode(), params).fetchone())

    def all(self, sql: str, /, **params: Any) -> list[Row]:
        return cast("list[Row]", self._cursor.execute(to_pyformat(sql).encode(), params).fetchall())

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]], /) -> None:
        self._cursor.executemany(to_pyformat(sql).encode(), rows)


class _Connections(threading.local):
    """Each pool thread's own connection."""

    connection: psycopg.Connection[dict[str, Any]] | None = None


class PostgresqlDatabase(Database):
    """See the module; made by `Database.open`."""

    dialect = "postgresql"

    def __init__(self, url: str, *, schema: str, migrations: str) -> None:
        super().__init__(url, schema=schema, migrations=migrations)
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix=f"postgresql-{schema}")
        self._turns = Turns(_THREADS - _THREADS_FOR_OTHERS)
        self._local = _Connections()
        self._open: set[psycopg.Connection[dict[str, Any]]] = set()
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[asyncio.Lock, int]] = {}
        self._closed = False

    async def write(self, fn: Callable[[Transaction], T], /, *, key: str = "") -> T:
        if not key:
            return await self._submit(fn, False)
        # Waiting here is free; waiting for a row lock holds a thread and ends in a serialization failure.
        lock, waiting = self._keys.get(key, (None, 0))
        lock = lock or asyncio.Lock()
        self._keys[key] = (lock, waiting + 1)
        try:
            async with lock:
                return await self._submit(fn, False)
        finally:
            lock, waiting = self._keys[key]
            if waiting == 1:
                del self._keys[key]
            else:
                self._keys[key] = (lock, waiting - 1)

    async def read(self, fn: Callable[[Transaction], T], /, *, snapshot: bool = True) -> T:
        async with self._turns.of(current_principal()) or contextlib.nullcontext():
            return await self._submit(fn, True)

    async def _submit(self, fn: Callable[[Transaction], T], read_only: bool) -> T:
        if self._closed:
            raise DatabaseClosed()
        loop = asyncio.get_running_loop()
        result, callbacks = await loop.run_in_executor(self._pool, self._run, fn, read_only)
        for callback in callbacks:
            callback()
        return result

    def stored_revision(self) -> str | None:
        import psycopg

        connection = self._connect()
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return None if row is None else str(row["version_num"])
        except psycopg.errors.UndefinedTable:
            return None
        except psycopg.Error as error:
            raise self._translate(error) from error
        finally:
            connection.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._end_reads()
        self._pool.shutdown(wait=True)
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _end_reads(self) -> None:
        """End the reads under way: a long one would hold up the end, and a write has little left to do."""
        if not self._open:
            return
        import psycopg

        active = psycopg.pq.TransactionStatus.ACTIVE
        with self._lock:
            reading = [c for c in self._open if c.read_only and c.info.transaction_status == active]
        for connection in reading:
            with contextlib.suppress(psycopg.Error):  # the server may be away
                connection.cancel_safe(timeout=_CANCEL_TIMEOUT_SECONDS)

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        import psycopg
        from psycopg.rows import dict_row

        try:
            connection = psycopg.connect(
                self.url,
                row_factory=dict_row,
                connect_timeout=_CONNECT_TIMEOUT_SECONDS,
                application_name=f"boardwright-{self.schema}",
                options=f"-c search_path={self.schema} -c statement_timeout={_STATEMENT_TIMEOUT_MS}",
            )
        except psycopg.Error as error:
            place = urlsplit(self.url)
            raise DatabaseUnavailable(
                f"PostgreSQL at {place.hostname}:{place.port or 5432} cannot be reached; "
                "start it or correct BOARDWRIGHT_DATABASE_URL, then repeat the call"
            ) from error
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.prepare_threshold = 2
        connection.prepared_max = 512
        return connection

    def _take(self) -> psycopg.Connection[dict[str, Any]]:
        connection = self._local.connection
        if connection is None or connection.closed:
            self._drop()
            connection = self._connect()
            self._local.connection = connection
            with self._lock:
                self._open.add(connection)
        return connection

    def _drop(self) -> None:
        connection, self._local.connection = self._local.connection, None
        if connection is not None:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _run(self, fn: Callable[[Transaction], T], read_only: bool) -> tuple[T, list[Callable[[], None]]]:
        """Run `fn` on this thread's connection, again where PostgreSQL asks. Raises: as `Database.write`."""
        import psycopg

        reconnected = False
        for attempt in range(_ATTEMPTS):
            connection = self._take()
            committing = False
            try:
                connection.read_only = read_only
                cursor = connection.cursor()
                transaction = PostgresqlTransaction(cursor)
                result = fn(transaction)
                committing = True
                connection.commit()
                return result, transaction.callbacks
            except psycopg.Error as error:
                retry = isinstance(
                    error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected
                )
                if connection.closed or isinstance(error, psycopg.InterfaceError):
                    self._drop()
                    # A connection that died while idle has changed nothing: one fresh connection is tried.
                    if (read_only or not committing) and not reconnected:
                        reconnected = True
                        continue
                    raise self._lost(committing and not read_only) from error
                connection.rollback()
                if read_only and isinstance(error, psycopg.errors.QueryCanceled):
                    raise DatabaseClosed() if self._closed else QueryTooLong() from error
                if not retry:
                    raise self._translate(error) from error
                time.sleep(random.uniform(0, min(0.002 * 2**attempt, 0.1)))  # noqa: S311 (jitter, no secret)
            except BaseException:
                if not connection.closed:
                    connection.rollback()
                raise
        raise DatabaseUnavailable(
            f"the database refused {_ATTEMPTS} attempts, because others kept changing the same rows; "
            "repeat the call"
        )

    @staticmethod
    def _lost(outcome_unknown: bool) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            "the connection to PostgreSQL was lost in mid-call; repeat the call with the same request_id",
            outcome_unknown=outcome_unknown,
        )

    @staticmethod
    def _translate(error: psycopg.Error) -> Exception:
        import psycopg

        name, table = error.diag.constraint_name or "", error.diag.table_name or ""
        if isinstance(error, psycopg.errors.UniqueViolation):
            return UniqueViolation(name, table)
        if isinstance(error, psycopg.errors.ForeignKeyViolation):
            return ForeignKeyViolation(name, table)
        if isinstance(error, psycopg.IntegrityError):
            return ConstraintViolation(name or str(error), table)
        if isinstance(error, psycopg.DataError):
            return ValueRefused(f"a value cannot be stored or compared: {str(error).partition(chr(10))[0]}")
        if isinstance(error, psycopg.errors.DiskFull):
            return DatabaseFull("the disk under PostgreSQL is full; free space, then repeat the call")
        if isinstance(error, psycopg.OperationalError):
            return DatabaseUnavailable(f"PostgreSQL cannot do this now ({error}); repeat the call")
        return error
