import pytest

from boardwright.database import Database
from boardwright.testing.database import database_fixture, fresh_database_url

LEDGER = "boardwright.testing:ledger_migrations"

database = database_fixture("ledger", LEDGER)


def _one_kind(kind, folder):
    with fresh_database_url(kind, "ledger", LEDGER, folder) as url:
        opened = Database.open(url, schema="ledger", migrations=LEDGER)
        yield opened
        opened.close()


@pytest.fixture
def sqlite_database(tmp_path):
    """For what only one writer thread has."""
    yield from _one_kind("sqlite", tmp_path)


@pytest.fixture
def postgresql_database(tmp_path):
    """For what only concurrent transactions have."""
    yield from _one_kind("postgresql", tmp_path)
