"""SQLite: one file, one writer thread with group commit; `sqlite_reads` has the reads.

Durability: WAL with `synchronous=FULL`, so a commit returns after its fsync. Writes that queue up while an
fsync runs share the next one: each runs in its own SAVEPOINT, then one COMMIT makes all of them durable, and
only then does any caller get its answer.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from boardwright.database.database import Database
from boardwright.database.errors import DatabaseClosed, DatabaseUnavailable
from boardwright.database.sqlite_connection import SqliteTransaction, connect, translate
from boardwright.database.sqlite_reads import Reads
from boardwright.database.transaction import Transaction

T = TypeVar("T")

_GROUP_LIMIT = 128


class _Request:
    """One queued write and the future that waits for it."""

    __slots__ = ("callbacks", "error", "fn", "future", "result")

    def __init__(self, fn: Callable[[Transaction], Any], future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.callbacks: list[Callable[[], None]] = []

    def deliver(self) -> None:
        if self.error is None:
            for callback in self.callbacks:
                callback()
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def _deliver_all(requests: list[_Request]) -> None:
    for request in requests:
        request.deliver()


class SqliteDatabase(Database):
    """See the module; made by `Database.open`."""

    dialect = "sqlite"

    def __init__(self, url: str, *, schema: str, migrations: str) -> None:
        super().__init__(url, schema=schema, migrations=migrations)
        self.path = Path("/" + url.removeprefix("sqlite:///").lstrip("/"))
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._reads = Reads(self.path)
        self._closed = False

    # Reading

    async def read(self, fn: Callable[[Transaction], T], /, *, snapshot: bool = True) -> T:
        return await self._reads.run(fn, snapshot)

    def stored_revision(self) -> str | None:
        if not self.path.exists():
            return None
        connection = connect(self.path)
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return None if row is None else str(row[0])
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise translate(error) from error
        except sqlite3.Error as error:
            raise translate(error) from error
        finally:
            connection.close()

    # Writing

    async def write(self, fn: Callable[[Transaction], T], /, *, key: str = "") -> T:
        if self._closed:
            raise DatabaseClosed()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"sqlite-{self.schema}", daemon=True)
            self._thread.start()
        self._queue.put(_Request(fn, future))
        return await future

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=10)
        self._reads.close()

    def _run(self) -> None:
        """The writer thread: take what is queued, make it durable together, answer."""
        connection: sqlite3.Connection | None = None
        stopping = False
        while not stopping:
            group: list[_Request] = []
            item = self._queue.get()
            while item is not None:
                group.append(item)
                if len(group) >= _GROUP_LIMIT:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                stopping = True
            if not group:
                continue
            try:
                if connection is None:
                    connection = connect(self.path)
                self._commit_group(connection, group)
            except Exception as error:
                for request in group:
                    request.error = request.error or error
                if connection is not None:
                    connection.close()
                    connection = None
            self._answer(group)
        if connection is not None:
            connection.close()

    @staticmethod
    def _answer(group: list[_Request]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Request]] = {}
        for request in group:
            by_loop.setdefault(request.future.get_loop(), []).append(request)
        for loop, requests in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_deliver_all, requests)

    @staticmethod
    def _commit_group(connection: sqlite3.Connection, group: list[_Request]) -> None:
        """Run the group in one transaction. Raises what makes all of it fail (BEGIN or COMMIT refused)."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            done = False  # the first change has nothing before it to protect, and needs no savepoint
            for request in group:
                if not request.future.cancelled():  # else nobody waits any more: an overload sheds itself
                    done = _run_request(connection, request, savepoint=done) or done
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise translate(error) from error


def _run_request(connection: sqlite3.Connection, request: _Request, *, savepoint: bool) -> bool:
    """Run one request in the open transaction; return whether it went well. Its failure undoes it alone.

    Raises: sqlite3.Error when the whole transaction is lost with it.
    """
    transaction = SqliteTransaction(connection)
    if savepoint:
        connection.execute("SAVEPOINT request")
    try:
        request.result = request.fn(transaction)
        request.callbacks = transaction.callbacks
        if savepoint:
            connection.execute("RELEASE request")
        return True
    except Exception as error:
        request.error = translate(error) if isinstance(error, sqlite3.Error | OverflowError) else error
        if savepoint:
            if (
                not connection.in_transaction
            ):  # SQLite rolled everything back itself, as it does on a bad disk
                lost = DatabaseUnavailable("another change of the same commit failed; repeat the call")
                raise (error if isinstance(error, sqlite3.Error) else lost) from error
            connection.execute("ROLLBACK TO request")
            connection.execute("RELEASE request")
        else:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
        return False
