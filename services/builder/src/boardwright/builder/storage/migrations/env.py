"""Alembic's entry: see `boardwright.database.alembic_env`."""

from boardwright.builder.storage.tables import METADATA
from boardwright.database.alembic_env import run

run(METADATA)
