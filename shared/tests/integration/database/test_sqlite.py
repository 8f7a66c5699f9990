"""Where SQLite's writes are committed."""

import asyncio
import sqlite3
import threading
import time

import pytest


def insert(tx, account):
    tx.execute("INSERT INTO accounts (account, balance, labels) VALUES (:a, 0, '{}')", a=account)
    return threading.get_ident()


def accounts(tx):
    return sorted(row["account"] for row in tx.all("SELECT account FROM accounts"))


@pytest.fixture
def quick_disk(monkeypatch):
    """Commits count as quick however busy this machine is."""
    monkeypatch.setattr("boardwright.database.sqlite._QUICK_SECONDS", 1000.0)


async def test_a_write_that_comes_alone_is_committed_where_it_is(sqlite_database, quick_disk):
    assert await sqlite_database.write(lambda tx: insert(tx, "a")) == threading.get_ident()
    assert await sqlite_database.read(accounts) == ["a"]


async def test_writes_with_company_gather_in_the_writer_thread(sqlite_database, quick_disk, monkeypatch):
    monkeypatch.setattr("boardwright.database.sqlite._COMPANY_SECONDS", 1000.0)
    sqlite_database._committed_at = time.monotonic()
    threads = await asyncio.gather(
        *(sqlite_database.write(lambda tx, n=n: insert(tx, f"a{n}")) for n in range(9))
    )
    assert threading.get_ident() not in threads
    assert len(await sqlite_database.read(accounts)) == 9


async def test_the_event_loop_does_not_wait_for_a_slow_disk(sqlite_database, monkeypatch):
    monkeypatch.setattr("boardwright.database.sqlite._QUICK_SECONDS", 0.0)
    assert await sqlite_database.write(lambda tx: insert(tx, "a")) != threading.get_ident()


async def test_the_event_loop_does_not_wait_for_another_process(sqlite_database, quick_disk):
    await sqlite_database.write(lambda tx: insert(tx, "before"))
    other = sqlite3.connect(sqlite_database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(sqlite_database.write(lambda tx: insert(tx, "a")))
    await asyncio.sleep(0)  # it would block here
    assert not writing.done()
    assert await sqlite_database.read(accounts) == ["before"]
    other.execute("ROLLBACK")
    other.close()
    assert await asyncio.wait_for(writing, 30) != threading.get_ident()


async def test_a_lone_write_that_fails_leaves_nothing_and_the_next_goes_on(sqlite_database, quick_disk):
    def fail(tx):
        insert(tx, "a")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await sqlite_database.write(fail)
    await sqlite_database.write(lambda tx: insert(tx, "b"))
    assert await sqlite_database.read(accounts) == ["b"]
