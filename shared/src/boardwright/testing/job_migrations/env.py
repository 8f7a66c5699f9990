"""Alembic environment of a service that has nothing but jobs."""

import sqlalchemy as sa

from boardwright.database.alembic_env import run
from boardwright.jobs.storage import schema

METADATA = sa.MetaData()
schema.declare(METADATA)
run(METADATA)
