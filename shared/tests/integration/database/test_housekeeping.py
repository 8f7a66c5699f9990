"""Old events and answered requests go, a little at a time, and an outage does not end the service."""

import asyncio

import pytest

from boardwright.database import DatabaseUnavailable, housekeeping, requests
from boardwright.database.housekeeping import forget_old, keep_house
from boardwright.database.outbox import Outbox

NOW_US = 1_800_000_000_000_000
DAY_US = 24 * 3600 * 1_000_000


async def count(database, table):
    return (await database.read(lambda tx: tx.one(f"SELECT COUNT(*) AS n FROM {table}")))["n"]


async def until(condition):
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_what_is_old_goes_and_what_is_young_stays(database):
    box = Outbox(database)

    def make(tx):
        for days in (31, 29):
            box.append(tx, "things/a", "thing.changed", {}, NOW_US - days * DAY_US)
        for days in (8, 6):
            name = f"request-{days}"
            requests.remember(tx, "ann", "Make", name, "print", b"answer")
            tx.execute(
                "UPDATE requests SET created_us = :at WHERE request_id = :name",
                at=NOW_US - days * DAY_US,
                name=name,
            )

    await database.write(make)
    assert await database.write(lambda tx: forget_old(tx, NOW_US)) == 2
    assert await database.write(lambda tx: forget_old(tx, NOW_US)) == 0
    assert await count(database, "events") == 1
    left = await database.read(lambda tx: tx.all("SELECT request_id FROM requests"))
    assert [row["request_id"] for row in left] == ["request-6"]


async def test_it_goes_on_until_cancelled(database):
    box = Outbox(database)
    await database.write(lambda tx: box.append(tx, "things/a", "thing.changed", {}, 1))
    keeping = asyncio.create_task(keep_house(database))

    async def gone():
        return await count(database, "events") == 0

    await until(gone)
    assert not keeping.done()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_an_outage_is_waited_out(database, monkeypatch, caplog):
    calls = []

    async def unavailable(fn, **_):
        calls.append(fn)
        raise DatabaseUnavailable("gone for a moment")

    monkeypatch.setattr(database, "write", unavailable)
    monkeypatch.setattr(housekeeping, "_PERIOD_SECONDS", 0.01)
    keeping = asyncio.create_task(keep_house(database))

    async def tried_again():
        return len(calls) > 2

    await until(tried_again)
    assert not keeping.done()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert "gone for a moment" in caplog.text
