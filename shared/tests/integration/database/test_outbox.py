import asyncio
import threading

import pytest

from boardwright.database import outbox
from boardwright.database.outbox import Outbox
from boardwright.rpc.errors import InvalidArgument, OutOfRange


async def take(events, count):
    taken = []
    async for event in events:
        taken.append(event)
        if len(taken) == count:
            return taken
    return taken


def append(box, subject, number, now_us=None):
    return lambda tx: box.append(tx, subject, "thing.changed", {"number": number}, now_us)


async def test_events_come_in_order_and_resume_after_a_cursor(database):
    box = Outbox(database)
    for number in range(6):
        await database.write(append(box, "things/a", number))
    first = await asyncio.wait_for(take(box.watch(), 3), 5)
    rest = await asyncio.wait_for(take(box.watch(first[-1].cursor), 3), 5)
    assert [e.payload["number"] for e in first + rest] == list(range(6))
    assert {e.kind for e in first} == {"thing.changed"}


async def test_a_watcher_is_woken_by_a_commit(database):
    box = Outbox(database)
    watching = asyncio.create_task(take(box.watch("now", subject_prefix="things/"), 2))
    await asyncio.sleep(0.05)
    await database.write(append(box, "others/x", 0))
    await database.write(append(box, "things/a", 1))
    await database.write(append(box, "things/b", 2))
    events = await asyncio.wait_for(watching, 5)
    assert [e.payload["number"] for e in events] == [1, 2]


async def test_a_watcher_that_passes_over_a_long_log_gives_way_to_others(sqlite_database, monkeypatch):
    """Reads of SQLite do not wait, and what is passed over is not sent: nothing else would stop it."""
    monkeypatch.setattr(outbox, "_BATCH", 10)
    box = Outbox(sqlite_database)
    await sqlite_database.write(lambda tx: [append(box, "others/x", n)(tx) for n in range(100)])
    read, reads = sqlite_database.read, []

    async def counted(fn):
        reads.append(fn)
        return await read(fn)

    monkeypatch.setattr(sqlite_database, "read", counted)
    watching = asyncio.create_task(take(box.watch(subject_prefix="things/"), 1))
    for turn in range(1, 5):
        await asyncio.sleep(0)
        assert len(reads) == turn
    watching.cancel()


async def test_an_undone_change_leaves_no_event(database):
    box = Outbox(database)

    def fail(tx):
        box.append(tx, "things/a", "thing.changed", {})
        raise KeyError("no")

    with pytest.raises(KeyError):
        await database.write(fail)
    assert await database.read(lambda tx: outbox.read(tx, (0, 0), 10)) == []


async def test_a_cursor_that_fell_off_the_log_is_out_of_range(database):
    box = Outbox(database)
    for number in range(4):
        await database.write(append(box, "things/a", number, now_us=number))
    old = (await asyncio.wait_for(take(box.watch(), 1), 5))[0].cursor
    assert await database.write(lambda tx: outbox.trim(tx, before_us=3)) == 3
    with pytest.raises(OutOfRange) as caught:
        await take(box.watch(old), 1)
    assert caught.value.reason == "CURSOR_EXPIRED"
    kept = await asyncio.wait_for(take(box.watch(), 1), 5)
    assert kept[0].payload == {"number": 3}
    assert await database.write(lambda tx: outbox.trim(tx, before_us=3)) == 0


async def test_now_works_on_a_log_that_was_trimmed_to_nothing(database):
    box = Outbox(database)
    await database.write(append(box, "things/a", 1, now_us=1))
    await database.write(lambda tx: outbox.trim(tx, before_us=10))
    watching = asyncio.create_task(take(box.watch("now"), 1))
    await asyncio.sleep(0.05)
    await database.write(append(box, "things/a", 2))
    assert (await asyncio.wait_for(watching, 5))[0].payload == {"number": 2}


@pytest.mark.parametrize("cursor", ["x", "1", "-1-2", "1-2-3", "9999999999999999999-1"])
async def test_what_is_no_cursor_is_refused(database, cursor):
    with pytest.raises(InvalidArgument):
        await take(Outbox(database).watch(cursor), 1)


@pytest.mark.postgresql
async def test_an_event_of_a_slow_transaction_is_not_passed_over(postgresql_database):
    """A transaction that took its place early but commits late must not be skipped by a reader.

    (SQLite has one writer: commit order is id order by construction.)
    """
    database = postgresql_database
    box = Outbox(database)
    placed, release = threading.Event(), threading.Event()

    def slow(tx):
        box.append(tx, "things/slow", "thing.changed", {"number": 1})
        placed.set()
        release.wait(10)

    slowly = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(placed.wait, 5)
    await database.write(append(box, "things/quick", 2))
    assert await database.read(lambda tx: outbox.read(tx, (0, 0), 10)) == []
    release.set()
    await slowly
    events = await database.read(lambda tx: outbox.read(tx, (0, 0), 10))
    assert [e.subject for e in events] == ["things/slow", "things/quick"]
