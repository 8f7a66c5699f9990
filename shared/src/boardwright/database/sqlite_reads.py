"""Reads of a SQLite file: short ones where they are asked for, long ones in threads.

A look-up by key takes some ten microseconds, less than handing it to a thread. What a caller's filter makes a
query look at has no such bound, and while it ran on the event loop no other call would be answered. So a read
begins on the loop, is broken off there after a few milliseconds, and begins again in a thread. Of those one
caller has all but one at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from boardwright.database.errors import DatabaseClosed, QueryTooLong
from boardwright.database.sqlite_connection import SqliteTransaction, connect, translate
from boardwright.database.transaction import LONGEST_READ_SECONDS, Row, Transaction
from boardwright.rpc.auth import current_principal
from boardwright.rpc.turns import Turns

T = TypeVar("T")

_LOOP_SECONDS = 0.005
_THREADS = 2
# Of SQLite's virtual machine, between two looks at the clock. In a thread a look waits for the interpreter.
_LOOP_INSTRUCTIONS = 1_000
_THREAD_INSTRUCTIONS = 100_000


class _TimeOver(Exception):
    """The read took longer than it may where it runs."""


class _TimedTransaction(SqliteTransaction):
    """A transaction that begins no statement once its time is over."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__(reader.connection)
        self._reader = reader

    def one(self, sql: str, /, **params: Any) -> Row | None:
        self._reader.check()
        return super().one(sql, **params)

    def all(self, sql: str, /, **params: Any) -> list[Row]:
        self._reader.check()
        return super().all(sql, **params)


class _Reader:
    """A connection that only reads, and for so long. `given_up` ends what runs on it."""

    def __init__(self, path: Path, instructions: int, given_up: Callable[[], bool] = lambda: False) -> None:
        self._ends_at = math.inf
        self._given_up = given_up
        self.connection = connect(path)
        self.connection.execute("PRAGMA query_only=ON")
        self.connection.set_progress_handler(self._is_over, instructions)

    def _is_over(self) -> bool:
        return time.perf_counter() > self._ends_at or self._given_up()

    def check(self) -> None:
        """Raises: _TimeOver."""
        if self._is_over():
            raise _TimeOver

    def run(self, fn: Callable[[Transaction], T], snapshot: bool, seconds: float) -> T:
        """Run `fn` for at most `seconds`. Raises: _TimeOver; as `Database.read`."""
        self._ends_at = time.perf_counter() + seconds
        try:
            if snapshot:
                self.connection.execute("BEGIN")
            return fn(_TimedTransaction(self))
        except (sqlite3.Error, OverflowError) as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise _TimeOver from error
            raise translate(error) from error
        finally:
            self._ends_at = math.inf
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")


class Reads:
    """The reads of one file; see the module."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: _Reader | None = None
        self._lock = threading.RLock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sqlite-reads")
        self._turns = Turns(_THREADS - 1)
        self._closed = False

    async def run(self, fn: Callable[[Transaction], T], snapshot: bool) -> T:
        """Run `fn`, perhaps twice: once it was broken off it begins anew. Raises: as `Database.read`."""
        if self._closed:
            raise DatabaseClosed()
        try:
            with self._lock:
                if self._reader is None:
                    self._reader = _Reader(self._path, _LOOP_INSTRUCTIONS)
                return self._reader.run(fn, snapshot, _LOOP_SECONDS)
        except _TimeOver:
            async with self._turns.of(current_principal()) or contextlib.nullcontext():
                if self._closed:
                    raise DatabaseClosed() from None
                return await self._in_thread(fn, snapshot)

    async def _in_thread(self, fn: Callable[[Transaction], T], snapshot: bool) -> T:
        hung_up = threading.Event()

        def read() -> T:
            reader = _Reader(self._path, _THREAD_INSTRUCTIONS, lambda: hung_up.is_set() or self._closed)
            try:
                return reader.run(fn, snapshot, LONGEST_READ_SECONDS)
            finally:
                reader.connection.close()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        except _TimeOver as error:
            raise DatabaseClosed() if self._closed else QueryTooLong() from error
        finally:
            hung_up.set()

    def close(self) -> None:
        """End what runs or waits for a thread, and close every connection."""
        self._closed = True
        self._threads.shutdown()
        with self._lock:
            if self._reader is not None:
                self._reader.connection.close()
                self._reader = None
