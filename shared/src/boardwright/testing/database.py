"""Fresh, migrated databases for tests: the same test on SQLite and on PostgreSQL.

    database = database_fixture("registry", "boardwright.registry:storage/migrations")

    async def test_it(database): ...        runs as [sqlite] and [postgresql]

Migrations run once per session and database kind; each test gets a copy, or one that is as good as new.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from boardwright.database import Database
from boardwright.testing import postgresql, postgresql_pool

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
_numbers = itertools.count(1)


@lru_cache(maxsize=32)
def _template(kind: str, schema: str, migrations: str) -> str:
    """A migrated database that is only copied: its path, or its name on the session's server."""
    if kind == "sqlite":
        folder = Path(tempfile.mkdtemp(prefix="boardwright-template-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = folder / f"{schema}.db"
        _migrate(f"sqlite://{path}", schema, migrations)
        return str(path)
    name = f"template_{schema}_{next(_numbers)}"
    server = postgresql.session_server()
    server.execute(f"CREATE DATABASE {name}")
    _migrate(server.url(name), schema, migrations)
    postgresql_pool.make_template(name, schema)
    return name


def _migrate(url: str, schema: str, migrations: str) -> None:
    database = Database.open(url, schema=schema, migrations=migrations)
    try:
        database.migrate(in_process=True)
    finally:
        database.close()


@contextmanager
def fresh_database_url(kind: str, schema: str, migrations: str, folder: Path) -> Iterator[str]:
    """The URL of a fresh migrated database; skips the test when no PostgreSQL server can run here."""
    if kind == "sqlite":
        path = folder / f"{schema}-{next(_numbers)}.db"
        shutil.copyfile(_template(kind, schema, migrations), path)
        yield f"sqlite://{path}"
        return
    reason = postgresql.missing_reason()
    if reason:
        if os.environ.get("BOARDWRIGHT_REQUIRE_SERVERS"):
            pytest.fail(reason)
        pytest.skip(reason)
    with postgresql_pool.fresh_database(_template(kind, schema, migrations), schema) as name:
        yield postgresql.session_server().url(name)


def database_fixture(schema: str, migrations: str) -> Callable[..., Any]:
    """A fixture that gives an open, migrated, empty `Database`, once per kind."""

    @pytest.fixture(params=KINDS)
    def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
        with fresh_database_url(request.param, schema, migrations, tmp_path) as url:
            opened = Database.open(url, schema=schema, migrations=migrations)
            try:
                yield opened
            finally:
                opened.close()

    return database


def database_url_fixture(schema: str, migrations: str) -> Callable[..., Any]:
    """A fixture that gives the URL alone, for tests that start the service as a process."""

    @pytest.fixture(params=KINDS)
    def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
        with fresh_database_url(request.param, schema, migrations, tmp_path) as url:
            yield url

    return database_url
