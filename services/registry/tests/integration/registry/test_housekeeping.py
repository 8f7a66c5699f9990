"""Trimming events and answers leaves what the registry keeps for good."""

import time

from boardwright.database.housekeeping import forget_old


async def count(database, table):
    return (await database.read(lambda tx: tx.one(f"SELECT COUNT(*) AS n FROM {table}")))["n"]


async def test_versions_and_the_audit_log_outlive_events_and_answers(client, database):
    await client.model()
    for _ in range(3):
        await client.version()
    now_us = time.time_ns() // 1000
    assert await database.write(lambda tx: forget_old(tx, now_us)) == 0
    assert await count(database, "events") == 4

    much_later = now_us + 60 * 24 * 3600 * 1_000_000
    assert await database.write(lambda tx: forget_old(tx, much_later)) == 8
    assert await count(database, "events") + await count(database, "requests") == 0
    assert await count(database, "versions") == 3
    assert await count(database, "audit_events") == 4
