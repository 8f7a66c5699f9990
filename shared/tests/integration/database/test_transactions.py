"""What storage code may rely on, on both databases."""

import asyncio
import contextlib
import threading

import pytest

from boardwright.database import ForeignKeyViolation, UniqueViolation, ValueRefused
from boardwright.rpc.translation import translate


def insert(tx, account, balance=0):
    tx.execute(
        "INSERT INTO accounts (account, balance, labels) VALUES (:account, :balance, '{}')",
        account=account,
        balance=balance,
    )


def balance(tx, account):
    row = tx.one("SELECT balance FROM accounts WHERE account = :account", account=account)
    return None if row is None else row["balance"]


async def test_a_write_returns_its_result_and_a_read_sees_it(database):
    assert await database.write(lambda tx: (insert(tx, "a", 5), balance(tx, "a"))[1]) == 5
    assert await database.read(lambda tx: balance(tx, "a")) == 5


async def test_rows_are_mappings(database):
    await database.write(lambda tx: insert(tx, "a", 2**53 + 1))
    (row,) = await database.read(lambda tx: tx.all("SELECT account, balance FROM accounts"))
    assert dict(row) == {"account": "a", "balance": 2**53 + 1}
    assert list(row.keys()) == ["account", "balance"]


async def test_a_text_that_postgresql_cannot_hold_is_the_callers_mistake(database):
    async def store():
        await database.write(lambda tx: insert(tx, "a\0b"))

    if database.dialect == "sqlite":
        return await store()
    with pytest.raises(ValueRefused, match="NUL") as caught:
        await store()
    assert translate(caught.value).reason == "FIELD_INVALID"


async def test_a_number_of_more_than_64_bits_is_no_defect(database):
    """A version, say, that somebody asks for by a made-up number."""
    found = "SELECT account FROM accounts WHERE balance = :n"
    with contextlib.suppress(ValueRefused):  # PostgreSQL compares it
        assert await database.read(lambda tx: tx.one(found, n=10**30)) is None
    with pytest.raises(ValueRefused) as caught:
        await database.write(lambda tx: insert(tx, "a", 10**30))
    assert translate(caught.value).reason == "FIELD_INVALID"


async def test_execute_tells_how_many_rows_changed(database):
    await database.write(lambda tx: tx.execute_many(
        "INSERT INTO accounts (account, balance, labels) VALUES (:a, 0, '{}')", [{"a": "x"}, {"a": "y"}]
    ))  # fmt: skip
    assert await database.write(lambda tx: tx.execute("UPDATE accounts SET balance = 1")) == 2


async def test_an_exception_undoes_everything_and_arrives_unchanged(database):
    class Refused(Exception):
        pass

    def fail(tx):
        insert(tx, "a")
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        await database.write(fail)
    assert await database.read(lambda tx: balance(tx, "a")) is None


async def test_one_failure_leaves_the_writes_beside_it_alone(database):
    await database.write(lambda tx: insert(tx, "taken"))
    names = ["a", "taken", "b", "taken", "c"]
    results = await asyncio.gather(
        *(database.write(lambda tx, n=n: insert(tx, n)) for n in names), return_exceptions=True
    )
    assert [isinstance(r, UniqueViolation) for r in results] == [False, True, False, True, False]
    rows = await database.read(lambda tx: tx.all("SELECT account FROM accounts ORDER BY account"))
    assert [r["account"] for r in rows] == ["a", "b", "c", "taken"]


async def test_violations_name_the_table(database):
    await database.write(lambda tx: insert(tx, "a"))
    with pytest.raises(UniqueViolation) as unique:
        await database.write(lambda tx: insert(tx, "a"))
    assert unique.value.table == "accounts"
    with pytest.raises(ForeignKeyViolation):
        await database.write(
            lambda tx: tx.execute("INSERT INTO entries (number, account) VALUES (1, 'none')")
        )


async def test_a_read_cannot_write(database):
    with pytest.raises(Exception, match=r"(?i)read.?only"):
        await database.read(lambda tx: insert(tx, "a"))
    assert await database.read(lambda tx: balance(tx, "a")) is None


@pytest.mark.parametrize("key", ["", "accounts/a"])
async def test_no_update_is_lost_when_many_read_then_write(database, key):
    """Serializable on both: a function that reads, computes and writes needs no locks of its own."""

    def increment(tx):
        before = balance(tx, "a")
        tx.execute("UPDATE accounts SET balance = :b WHERE account = 'a'", b=before + 1)
        return before + 1

    await database.write(lambda tx: insert(tx, "a"))
    seen = await asyncio.gather(*(database.write(increment, key=key) for _ in range(40)))
    assert sorted(seen) == list(range(1, 41))


async def test_write_skew_is_refused_on_both(database):
    """Two functions that each check the sum and then write different rows cannot both pass the check."""
    await database.write(lambda tx: (insert(tx, "a", 50), insert(tx, "b", 50)))

    def withdraw(account):
        def fn(tx):
            total = sum(r["balance"] for r in tx.all("SELECT balance FROM accounts"))
            if total < 100:
                return False
            tx.execute("UPDATE accounts SET balance = balance - 100 WHERE account = :a", a=account)
            return True

        return fn

    taken = await asyncio.gather(*(database.write(withdraw(a)) for a in ("a", "b") for _ in range(5)))
    assert taken.count(True) == 1


async def test_callbacks_run_after_a_commit_and_only_then(database):
    called = []

    def good(tx):
        insert(tx, "a")
        tx.after_commit(lambda: called.append("good"))

    def bad(tx):
        tx.after_commit(lambda: called.append("bad"))
        raise KeyError("x")

    await database.write(good)
    with pytest.raises(KeyError):
        await database.write(bad)
    assert called == ["good"]


async def test_a_cancelled_caller_does_not_harm_the_others(database):
    tasks = [asyncio.create_task(database.write(lambda tx, i=i: insert(tx, f"a{i}"))) for i in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(r is None for r in results[1::2])


async def test_a_write_that_nobody_waits_for_any_more_is_not_begun(sqlite_database):
    """Callers that gave up while they were queued cost nothing."""
    database = sqlite_database
    release, running = threading.Event(), threading.Event()

    def slow(tx):
        running.set()
        release.wait(10)

    slowly = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(running.wait, 5)
    given_up = [asyncio.create_task(database.write(lambda tx, i=i: insert(tx, f"a{i}"))) for i in range(5)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    release.set()
    await slowly
    await database.write(lambda tx: insert(tx, "kept"))
    rows = await database.read(lambda tx: tx.all("SELECT account FROM accounts"))
    assert [r["account"] for r in rows] == ["kept"]


async def test_reads_see_one_snapshot(database):
    await database.write(lambda tx: insert(tx, "a", 1))

    def twice(tx):
        return [balance(tx, "a"), balance(tx, "a")]

    pairs, _ = await asyncio.gather(
        asyncio.gather(*(database.read(twice) for _ in range(20))),
        asyncio.gather(*(database.write(
            lambda tx: tx.execute("UPDATE accounts SET balance = balance + 1")) for _ in range(20))),
    )  # fmt: skip
    assert all(first == second for first, second in pairs)


async def test_a_closed_database_says_so(database):
    from boardwright.database import DatabaseUnavailable

    database.close()
    database.close()
    with pytest.raises(DatabaseUnavailable):
        await database.write(lambda tx: insert(tx, "a"))
