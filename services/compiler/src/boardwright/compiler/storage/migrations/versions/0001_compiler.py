"""Jobs, their steps and cache; requests and events; the audit log."""

import sqlalchemy as sa
from alembic import op

from boardwright.database import schema as database_schema
from boardwright.jobs.storage import schema as jobs_schema

revision = "0001_compiler"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    jobs_schema.create(op)
    database_schema.create(op)
    op.create_table(
        "audit_events",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("create_us", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_audit_events_project_id", "audit_events", ["project", "id"])


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("audit_events")
    database_schema.drop(op)
    jobs_schema.drop(op)
