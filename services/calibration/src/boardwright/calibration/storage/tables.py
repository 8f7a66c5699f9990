"""The service's tables.

Columns `…_us` are microseconds since the epoch; TEXT columns named as JSON hold it.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from boardwright.database import schema

METADATA = sa.MetaData()
# Manifests are sorted by name: in the order of code points on every database, whatever its locale.
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class _Base(SQLModel):
    """Binds the tables to the service's own MetaData."""

    metadata = METADATA


def _key() -> str:
    return Field(sa_type=sa.Text, primary_key=True)  # type: ignore[no-any-return]


def _text() -> str:
    return Field(sa_type=sa.Text)  # type: ignore[no-any-return]


def _number_key() -> int:
    return Field(  # type: ignore[no-any-return]
        sa_type=sa.BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False}
    )


def _number() -> int:
    return Field(sa_type=sa.BigInteger)  # type: ignore[no-any-return]


class DatasetRow(_Base, table=True):
    """Datasets; `versions` counts them, for the next number."""

    __tablename__ = "datasets"

    project: str = _key()
    dataset: str = _key()
    task: str = _text()
    description: str = _text()
    versions: int = _number()
    create_us: int = _number()


class VersionRow(_Base, table=True):
    """Versions; `classes`, `statistics` and `left_out` are JSON. `added` counts samples ever added."""

    __tablename__ = "versions"
    __table_args__ = (
        sa.UniqueConstraint("project", "dataset", "number", name="uq_versions_number"),
        {"sqlite_autoincrement": True},
    )

    id: int = Field(sa_type=_BIG_ID, primary_key=True)
    project: str = _text()
    dataset: str = _text()
    number: int = _number()
    state: str = _text()
    classes: str = _text()
    added: int = _number()
    sample_count: int = _number()
    labelled_count: int = _number()
    size_bytes: int = _number()
    manifest_digest: str = _text()
    statistics: str = _text()
    left_out: str = _text()
    creator: str = _text()
    create_us: int = _number()
    seal_us: int = _number()


class PackRow(_Base, table=True):
    """The packs of a version."""

    __tablename__ = "packs"

    version_id: int = _number_key()
    digest: str = _key()
    size_bytes: int = _number()


class SampleRow(_Base, table=True):
    """Samples in the order of adding (`sequence`); `label` is JSON; `problem` is set by inspection.

    `key` is "{version_id}/{name}": in one column, so that PostgreSQL's planner has one index for look-ups by
    name. With (version_id, name) it prefers the primary key's (version_id, …) while a new version has no
    statistics yet, and every look-up reads the whole version.
    """

    __tablename__ = "samples"
    __table_args__ = (sa.UniqueConstraint("key", name="uq_samples_key"),)

    version_id: int = _number_key()
    sequence: int = _number_key()
    key: str = Field(sa_type=KEY)
    digest: str = _text()
    size_bytes: int = _number()
    media_type: str = _text()
    pack_digest: str = _text()
    pack_offset: int = _number()
    label: str = _text()
    problem: str = _text()


class SampleClassRow(_Base, table=True):
    """Which classes a sample's labels have, for filters."""

    __tablename__ = "sample_classes"

    version_id: int = _number_key()
    class_id: int = _number_key()
    sequence: int = _number_key()


class InspectionRow(_Base, table=True):
    """Batches of inspected samples, by their first one; `statistics` is JSON."""

    __tablename__ = "inspections"

    version_id: int = _number_key()
    first: int = _number_key()
    last: int = _number()
    labelled: int = _number()
    statistics: str = _text()


class AuditEventRow(_Base, table=True):
    """Who did what."""

    __tablename__ = "audit_events"
    __table_args__ = (
        sa.Index("ix_audit_events_project", "project", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int = Field(sa_type=_BIG_ID, primary_key=True)
    project: str = _text()
    actor: str = _text()
    service: str = _text()
    method: str = _text()
    resource: str = _text()
    create_us: int = _number()


schema.declare(METADATA)
