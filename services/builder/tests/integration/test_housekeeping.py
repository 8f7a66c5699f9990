"""The service keeps its house: its events and remembered answers do not grow for ever."""

import asyncio

import pytest

from boardwright.builder import app
from boardwright.builder.settings import MIGRATIONS, SCHEMA
from boardwright.database import Database
from boardwright.database.outbox import Outbox

LONG_AGO_US = 1


async def _events(database: Database) -> int:
    row = await database.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM events"))
    return int(row["n"])


@pytest.fixture
def url(tmp_path, monkeypatch):
    made = f"sqlite:///{tmp_path}/service.db"
    tokens = tmp_path / "tokens.json"
    tokens.write_text("[]")
    monkeypatch.setenv("BOARDWRIGHT_DATABASE_URL", made)
    monkeypatch.setenv("BOARDWRIGHT_TOKENS_FILE", str(tokens))
    monkeypatch.setenv("BOARDWRIGHT_SERVICE_TOKEN", "a-token")
    monkeypatch.setenv("BOARDWRIGHT_GRANT_KEY", "a-key-of-the-installation")
    for service in ("REGISTRY", "CALIBRATION", "BUILDER"):
        monkeypatch.setenv(f"BOARDWRIGHT_{service}_ENDPOINT", "127.0.0.1:1")
    return made


async def test_old_events_go_while_it_serves(url, monkeypatch):
    left = []

    async def serve(services, settings, *, on_ready=None, background=()):
        """Runs what runs beside the server, and no server, until the old event is gone."""
        tasks = [asyncio.ensure_future(run()) for run in background]
        try:
            for _ in range(200):
                left.append(await _events(database))
                if not left[-1]:
                    return
                await asyncio.sleep(0.01)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    database = Database.open(url, schema=SCHEMA, migrations=MIGRATIONS)
    database.migrate(in_process=True)
    box = Outbox(database)
    await database.write(lambda tx: box.append(tx, "things/a", "thing.changed", {}, LONG_AGO_US))
    assert await _events(database) == 1
    monkeypatch.setattr(app, "serve", serve)
    try:
        await app.run()
    finally:
        database.close()
    assert left[-1] == 0
