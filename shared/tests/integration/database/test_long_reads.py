"""A read that takes long holds up no other call, ends when nobody waits for it, and has a longest time."""

import asyncio

import pytest

from boardwright.database import Database, DatabaseUnavailable, QueryTooLong
from boardwright.rpc.auth import Principal, set_principal
from boardwright.rpc.errors import ResourceExhausted
from boardwright.rpc.translation import translate

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) AS n FROM n"


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A busy machine may stop the tests for longer than a read may take."""
    monkeypatch.setattr("boardwright.database.sqlite_reads.LONGEST_READ_SECONDS", 3600.0)


def one_statement(tx):
    return tx.one(ENDLESS)


def many_statements(tx):
    while True:
        tx.one("SELECT 1 AS n")


@pytest.mark.parametrize("long_read", [one_statement, many_statements])
async def test_others_read_and_write_beside_it(sqlite_database, long_read):
    reading = asyncio.create_task(sqlite_database.read(long_read))
    for n in range(5):
        await sqlite_database.write(
            lambda tx, n=n: tx.execute(
                "INSERT INTO accounts (account, balance, labels) VALUES (:n, 0, '')", n=n
            )
        )
        row = await sqlite_database.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM accounts"))
        assert row["n"] == n + 1
    assert not reading.done()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_it_ends_with_its_caller_or_with_the_database(sqlite_database):
    """More of them than there are threads: those that nobody waits for any more make room."""
    for _ in range(5):
        reading = asyncio.create_task(sqlite_database.read(one_statement))
        await asyncio.sleep(0)
        reading.cancel()
    assert (await sqlite_database.read(lambda tx: _longer_than_on_the_loop(tx)))["n"] == 200_000
    reading = [asyncio.create_task(sqlite_database.read(one_statement)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.to_thread(sqlite_database.close)
    for each in [*reading, asyncio.create_task(sqlite_database.read(one_statement))]:
        with pytest.raises(DatabaseUnavailable, match="stopping"):
            await each


async def test_one_callers_leave_room_for_others(database):
    async def read(name, long_read):
        set_principal(Principal(name))
        return await database.read(long_read)

    anns = [asyncio.create_task(read("ann", one_statement)) for _ in range(10)]
    await asyncio.sleep(0)
    assert (await asyncio.create_task(read("bob", _longer_than_on_the_loop)))["n"] == 200_000
    assert not any(each.done() for each in anns)
    await asyncio.to_thread(database.close)
    for each in anns:
        with pytest.raises((DatabaseUnavailable, asyncio.CancelledError)):
            await each


async def test_it_does_not_hold_up_the_end_of_a_service(postgresql_database):
    again = Database.open(postgresql_database.url, schema="ledger", migrations=postgresql_database.migrations)
    reading = asyncio.create_task(again.read(one_statement))
    under_way = (
        "SELECT 1 AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'WITH RECURSIVE n %'"
    )
    while await postgresql_database.read(lambda tx: tx.one(under_way)) is None:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(again.close)
    with pytest.raises(DatabaseUnavailable, match="stopping"):
        await reading


def _longer_than_on_the_loop(tx):
    return tx.one(f"{ENDLESS.partition('SELECT i + 1')[0]} SELECT i + 1 FROM n WHERE i < 200000)"
                  " SELECT COUNT(*) AS n FROM n")  # fmt: skip


async def test_it_has_a_longest_time_and_the_caller_is_told_to_ask_for_less(database, monkeypatch):
    monkeypatch.setattr("boardwright.database.sqlite_reads.LONGEST_READ_SECONDS", 0.2)
    monkeypatch.setattr("boardwright.database.postgresql._STATEMENT_TIMEOUT_MS", 200)
    short = Database.open(database.url, schema="ledger", migrations=database.migrations)
    with pytest.raises(QueryTooLong, match="ask for less") as caught:
        await short.read(one_statement)
    told = translate(caught.value)
    assert isinstance(told, ResourceExhausted)  # an outage would be asked again, and take as long again
    assert told.reason == "QUERY_TOO_LONG"
    short.close()


async def test_a_change_that_waits_too_long_for_others_is_an_outage(postgresql_database, monkeypatch):
    """Nobody could ask for less of it: it is repeated."""
    monkeypatch.setattr("boardwright.database.postgresql._STATEMENT_TIMEOUT_MS", 200)
    short = Database.open(postgresql_database.url, schema="ledger", migrations=postgresql_database.migrations)
    with pytest.raises(DatabaseUnavailable, match="repeat the call") as caught:
        await short.write(one_statement)
    assert not isinstance(caught.value, QueryTooLong)
    short.close()
