"""The builder's tables. Columns ``…_us`` are microseconds since the epoch.

The builder owns little: jobs and their cache are ``boardwright.jobs``', requests and events
``boardwright.database``'s; artifacts and measurements live in the registry.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from boardwright.database import schema
from boardwright.jobs.storage import schema as job_schema

METADATA = sa.MetaData()


class _Base(SQLModel):
    """Binds the tables to the builder's own MetaData."""

    metadata = METADATA


class AuditEventRow(_Base, table=True):
    """Who did what, in the transaction that did it."""

    __tablename__ = "audit_events"
    __table_args__ = (sa.Index("ix_audit_events_project", "project", "id"), {"sqlite_autoincrement": True})

    id: int = Field(
        sa_column=sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        )
    )
    project: str = Field(sa_type=sa.Text)
    actor: str = Field(sa_type=sa.Text)
    method: str = Field(sa_type=sa.Text)
    resource: str = Field(sa_type=sa.Text)
    create_us: int = Field(sa_type=sa.BigInteger)


schema.declare(METADATA)
job_schema.declare(METADATA)
