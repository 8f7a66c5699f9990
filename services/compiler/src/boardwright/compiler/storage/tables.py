"""The compiler's tables, for migrations and their test; nothing at runtime imports this."""

import sqlalchemy as sa

from boardwright.database import schema as database_schema
from boardwright.jobs.storage import schema as jobs_schema

METADATA = sa.MetaData()
jobs_schema.declare(METADATA)
database_schema.declare(METADATA)

AUDIT_EVENTS = sa.Table(
    "audit_events",
    METADATA,
    sa.Column(
        "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    ),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    sa.Column("create_us", sa.BigInteger, nullable=False),
    sa.Index("ix_audit_events_project_id", "project", "id"),
)
