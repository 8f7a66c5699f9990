"""A database with the jobs tables, on SQLite and on PostgreSQL; a folder that steps may write in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from boardwright.testing.database import database_fixture
from boardwright.testing.executor_contract import writable_folder
from boardwright.testing.jobs import MIGRATIONS

database = database_fixture("jobs", MIGRATIONS)


@pytest.fixture
def writable() -> Iterator[Path]:
    """See ``writable_folder``."""
    with writable_folder() as folder:
        yield folder
