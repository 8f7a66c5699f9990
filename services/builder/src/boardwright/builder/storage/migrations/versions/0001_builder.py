"""Jobs, requests, events and the audit log."""

import sqlalchemy as sa
from alembic import op

from boardwright.database import schema
from boardwright.jobs.storage import schema as job_schema

revision = "0001_builder"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    schema.create(op)
    job_schema.create(op)
    op.create_table(
        "audit_events",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_events_project", "audit_events", ["project", "id"])


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("audit_events")
    job_schema.drop(op)
    schema.drop(op)
