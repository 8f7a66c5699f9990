import asyncio

import pytest

from boardwright.database import requests
from boardwright.rpc.errors import AlreadyExists, InvalidArgument


def numbered(request_id, fingerprint="f"):
    """A change that takes the next number, once for each request_id."""

    def change(tx):
        stored = requests.recall(tx, "ann", "Create", request_id, fingerprint)
        if stored is not None:
            return int(stored)
        row = tx.one("SELECT COUNT(*) AS taken FROM accounts")
        tx.execute(
            "INSERT INTO accounts (account, balance, labels) VALUES (:a, 0, '{}')", a=f"a{row['taken'] + 1}"
        )
        requests.remember(tx, "ann", "Create", request_id, fingerprint, str(row["taken"] + 1).encode())
        return row["taken"] + 1

    return change


async def test_the_same_request_again_changes_nothing(database):
    assert await database.write(numbered("r1")) == 1
    assert await database.write(numbered("r1")) == 1
    assert await database.write(numbered("r2")) == 2


async def test_without_an_id_every_request_is_new(database):
    assert [await database.write(numbered("")) for _ in range(3)] == [1, 2, 3]


async def test_simultaneous_repeats_change_once(database):
    answers = await asyncio.gather(*(database.write(numbered("r1")) for _ in range(16)))
    assert answers == [1] * 16
    assert await database.write(numbered("r2")) == 2


async def test_an_id_used_for_another_request_is_refused(database):
    await database.write(numbered("r1", "f"))
    with pytest.raises(AlreadyExists) as caught:
        await database.write(numbered("r1", "g"))
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_ids_belong_to_their_principal_and_method(database):
    await database.write(numbered("r1"))
    for who, method in (("bob", "Create"), ("ann", "Delete")):
        assert await database.read(lambda tx, w=who, m=method: requests.recall(tx, w, m, "r1", "x")) is None


async def test_a_long_id_is_refused(database):
    with pytest.raises(InvalidArgument):
        await database.write(numbered("r" * 65))


async def test_old_answers_are_forgotten_a_few_at_a_time(database):
    for number in range(5):
        await database.write(numbered(f"r{number}"))
    assert await database.write(lambda tx: requests.forget(tx, 2**62, limit=3)) == 3
    assert await database.write(lambda tx: requests.forget(tx, 2**62, limit=3)) == 2
    assert await database.write(lambda tx: requests.forget(tx, 2**62)) == 0
