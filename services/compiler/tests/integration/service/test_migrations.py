"""The migrations make exactly the declared tables."""

from __future__ import annotations

import alembic.command

from boardwright.compiler.app import MIGRATIONS
from boardwright.database import Database
from boardwright.database.migrating import configuration


def test_the_tables_and_the_migrations_agree(database: Database):
    alembic.command.check(configuration(database.url, database.schema, MIGRATIONS))
