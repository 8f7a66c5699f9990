"""Accounts and numbered entries, with requests and events."""

import sqlalchemy as sa
from alembic import op

from boardwright.database import schema

revision = "0001_ledger"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    schema.create(op)
    op.create_table(
        "accounts",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("account", sa.Text, sa.ForeignKey("accounts.account"), nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("entries")
    op.drop_table("accounts")
    schema.drop(op)
