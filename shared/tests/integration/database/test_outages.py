"""The database goes away: the error says so, nothing acknowledged is lost, a retry succeeds."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from boardwright.database import Database, DatabaseFull, DatabaseUnavailable
from boardwright.testing.postgresql import PostgresqlServer, missing_reason

LEDGER = "boardwright.testing:ledger_migrations"
needs_postgresql = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-")


@pytest.fixture(scope="module")
def server():
    server = PostgresqlServer(durable=True).start()
    database = Database.open(server.url(), schema="ledger", migrations=LEDGER)
    database.migrate(in_process=True)
    database.close()
    yield server
    server.stop()


@pytest.fixture
def database(server):
    if server.process is None:
        server.start()
    database = Database.open(server.url(), schema="ledger", migrations=LEDGER)
    yield database
    database.close()


def insert(tx, account):
    tx.execute("INSERT INTO accounts (account, balance, labels) VALUES (:a, 0, '{}')", a=account)


def count(tx, account):
    return tx.one("SELECT COUNT(*) AS n FROM accounts WHERE account = :a", a=account)["n"]


@pytest.mark.postgresql
@needs_postgresql
async def test_postgresql_dies_in_mid_transaction(server, database):
    def half(tx):
        insert(tx, "half")
        if kills.pop():
            server.kill()
        insert(tx, "other half")

    kills = [False, True]

    with pytest.raises(DatabaseUnavailable, match="repeat the call"):
        await database.write(half)
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        await database.read(lambda tx: count(tx, "half"))
    server.start()
    assert await database.read(lambda tx: count(tx, "half")) == 0
    await database.write(half)
    assert await database.read(lambda tx: count(tx, "half")) == 1


@pytest.mark.postgresql
@needs_postgresql
async def test_a_restart_between_calls_is_not_noticed(server, database):
    await database.write(lambda tx: insert(tx, "before"))
    server.kill()
    server.start()
    await database.write(lambda tx: insert(tx, "after"))
    assert await database.read(lambda tx: (count(tx, "before"), count(tx, "after"))) == (1, 1)


@pytest.mark.postgresql
@needs_postgresql
async def test_what_postgresql_acknowledged_survives_its_crash(server, database):
    acknowledged = []

    async def push(i):
        for n in range(1000):
            try:
                await database.write(lambda tx, n=n: insert(tx, f"p{i}-{n}"))
            except DatabaseUnavailable:
                return
            acknowledged.append(f"p{i}-{n}")

    pushing = [asyncio.create_task(push(i)) for i in range(4)]
    while len(acknowledged) < 40:
        await asyncio.sleep(0.005)
    await asyncio.to_thread(server.kill)
    await asyncio.gather(*pushing)
    server.start()
    rows = await database.read(lambda tx: tx.all("SELECT account FROM accounts"))
    assert set(acknowledged) <= {r["account"] for r in rows}


WRITER = f"""
import asyncio, sys
from boardwright.database import Database
async def main():
    db = Database.open(sys.argv[1], schema="ledger", migrations={LEDGER!r})
    async def push(i):
        for n in range(10**6):
            await db.write(lambda tx: tx.execute(
                "INSERT INTO accounts (account, balance, labels) VALUES (:a, 0, '{{}}')", a=f"p{{i}}-{{n}}"))
            sys.stdout.write(f"p{{i}}-{{n}}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(push(i) for i in range(8)))
asyncio.run(main())
"""


def test_what_sqlite_acknowledged_survives_a_kill_of_the_process(tmp_path):
    url = f"sqlite://{tmp_path}/ledger.db"
    database = Database.open(url, schema="ledger", migrations=LEDGER)
    database.migrate(in_process=True)
    database.close()
    process = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    acknowledged = [process.stdout.readline().strip() for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    acknowledged += rest.split("\n")[:-1]
    connection = sqlite3.connect(tmp_path / "ledger.db")
    stored = {row[0] for row in connection.execute("SELECT account FROM accounts")}
    connection.close()
    assert set(acknowledged) <= stored
    assert len(stored) <= len(acknowledged) + 8, "more rows than could have been under way"


async def test_a_full_disk_is_told_and_the_next_write_succeeds(tmp_path):
    database = Database.open(f"sqlite://{tmp_path}/ledger.db", schema="ledger", migrations=LEDGER)
    database.migrate(in_process=True)
    await database.write(lambda tx: insert(tx, "first"))

    def fill(tx):
        tx.one("PRAGMA max_page_count=1")  # SQLite's own way of running out of room
        for n in range(2000):
            tx.execute(
                "INSERT INTO accounts (account, balance, labels) VALUES (:a, 0, :l)", a=f"x{n}", l="x" * 900
            )

    def make_room(tx):
        tx.one("PRAGMA max_page_count=1073741823")
        insert(tx, "second")

    with pytest.raises(DatabaseFull, match="free space"):
        await database.write(fill)
    await database.write(make_room)
    rows = await database.read(lambda tx: tx.all("SELECT account FROM accounts ORDER BY account"))
    assert [r["account"] for r in rows] == ["first", "second"]
    database.close()


async def test_a_full_disk_in_a_group_is_told_to_whom_it_concerns(tmp_path):
    database = Database.open(f"sqlite://{tmp_path}/ledger.db", schema="ledger", migrations=LEDGER)
    database.migrate(in_process=True)

    def fill(tx):
        tx.one("PRAGMA max_page_count=1")
        for n in range(2000):
            tx.execute(
                "INSERT INTO accounts (account, balance, labels) VALUES (:a, 0, :l)", a=f"x{n}", l="x" * 900
            )

    async def write(fn):
        return await database.write(fn)

    before, full, after = await asyncio.gather(
        write(lambda tx: insert(tx, "before")), write(fill), write(lambda tx: insert(tx, "after")),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(full, DatabaseFull)
    rows = await database.read(lambda tx: tx.all("SELECT account FROM accounts"))
    stored = {r["account"] for r in rows}
    for name, outcome in (("before", before), ("after", after)):
        assert (outcome is None) == (name in stored)
        assert outcome is None or isinstance(outcome, DatabaseFull)
    assert stored <= {"before", "after"}
    database.close()


async def test_a_missing_folder_is_told(tmp_path):
    database = Database.open(f"sqlite://{tmp_path}/none/ledger.db", schema="ledger", migrations=LEDGER)
    with pytest.raises(DatabaseUnavailable):
        await database.write(lambda tx: insert(tx, "x"))
    with pytest.raises(DatabaseUnavailable):
        await database.read(lambda tx: count(tx, "x"))
    database.close()


async def test_a_locked_file_is_waited_for_or_told(tmp_path, monkeypatch):
    monkeypatch.setattr("boardwright.database.sqlite_connection._BUSY_TIMEOUT_MS", 100)
    database = Database.open(f"sqlite://{tmp_path}/ledger.db", schema="ledger", migrations=LEDGER)
    database.migrate(in_process=True)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="repeated"):
        await database.write(lambda tx: insert(tx, "x"))
    other.execute("ROLLBACK")
    other.close()
    await database.write(lambda tx: insert(tx, "x"))
    database.close()
