"""Alembic's entry: see `boardwright.database.alembic_env`."""

from boardwright.database.alembic_env import run
from boardwright.delivery.storage.tables import METADATA

run(METADATA)
