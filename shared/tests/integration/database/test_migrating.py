import subprocess
import sys

import pytest
from alembic import command

from boardwright.database import Database, DatabaseOutdated
from boardwright.database.migrating import configuration, revisions
from boardwright.testing.postgresql import missing_reason, session_server

LEDGER = "boardwright.testing:ledger_migrations"


async def test_a_migrated_database_needs_nothing(database):
    assert database.stored_revision() == "0001_ledger"
    assert database.migrate() is False


async def test_tables_and_migrations_agree(database):
    command.check(configuration(database.url, database.schema, LEDGER))


async def test_a_revision_from_the_future_is_refused(database):
    await database.write(lambda tx: tx.execute("UPDATE alembic_version SET version_num = '0099_later'"))
    with pytest.raises(DatabaseOutdated, match="0099_later"):
        database.migrate()


def test_the_first_start_migrates_in_a_process_of_its_own(tmp_path):
    program = (
        "import sys\n"
        "from boardwright.database import Database\n"
        f"db = Database.open('sqlite://{tmp_path}/deep/new.db', schema='ledger', migrations='{LEDGER}')\n"
        "assert db.migrate() is True and db.migrate() is False\n"
        "assert 'alembic' not in sys.modules and 'sqlalchemy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_every_revision_is_named_like_its_file():
    assert revisions(LEDGER) == ["0001_ledger"]


@pytest.mark.postgresql
@pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-")
def test_two_services_migrate_the_same_server_at_once_into_their_own_schemas():
    from concurrent.futures import ThreadPoolExecutor

    server = session_server()
    server.execute("CREATE DATABASE shared_by_two")
    url = server.url("shared_by_two")
    program = (
        "import sys\nfrom boardwright.database import Database\n"
        f"Database.open('{url}', schema=sys.argv[1], migrations='{LEDGER}').migrate()\n"
    )
    with ThreadPoolExecutor() as pool:
        done = pool.map(
            lambda schema: subprocess.run([sys.executable, "-c", program, schema], timeout=60).returncode,
            ["one", "one", "two"],
        )
    assert list(done) == [0, 0, 0]
    for schema in ("one", "two"):
        database = Database.open(url, schema=schema, migrations=LEDGER)
        assert database.stored_revision() == "0001_ledger"
        database.close()


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:relative.db", ""])
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match="sqlite:///"):
        Database.open(url, schema="x", migrations=LEDGER)
