"""Alembic environment of the smallest service there could be."""

import sqlalchemy as sa

from boardwright.database import schema
from boardwright.database.alembic_env import run

METADATA = sa.MetaData()
schema.declare(METADATA)
sa.Table(
    "accounts",
    METADATA,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("balance", sa.BigInteger, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
)
sa.Table(
    "entries",
    METADATA,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("account", sa.Text, sa.ForeignKey("accounts.account"), nullable=False),
)
run(METADATA)
