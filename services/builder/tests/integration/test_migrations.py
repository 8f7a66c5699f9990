"""The migrations make exactly the declared tables."""

import alembic.command

from boardwright.builder.settings import MIGRATIONS
from boardwright.database import Database
from boardwright.database.migrating import configuration
from boardwright.testing.database import database_fixture

database = database_fixture("builder", MIGRATIONS)


def test_the_tables_and_the_migrations_agree(database: Database) -> None:
    alembic.command.check(configuration(database.url, database.schema, MIGRATIONS))
