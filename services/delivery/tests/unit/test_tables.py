"""The migration makes what the tables declare."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from boardwright.database import Database
from boardwright.delivery.settings import MIGRATIONS, SCHEMA
from boardwright.delivery.storage.tables import METADATA


def test_migrations_and_tables_agree(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path / 'delivery.db'}"
    database = Database.open(url, schema=SCHEMA, migrations=MIGRATIONS)
    assert database.migrate(in_process=True)
    database.close()
    engine = sa.create_engine("sqlite:////" + str(tmp_path / "delivery.db").lstrip("/"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()
