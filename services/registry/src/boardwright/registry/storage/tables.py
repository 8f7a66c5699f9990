"""The registry's tables. Columns `…_us` are microseconds since the epoch; TEXT columns named as JSON hold it.

Every list reads along an index and continues after a key, so that its cost does not grow with the table.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from boardwright.database import schema
from boardwright.registry.storage import blob_tables

METADATA = sa.MetaData()


class _Base(SQLModel):
    """Binds the tables to the registry's own MetaData."""

    metadata = METADATA


def _key() -> str:
    return Field(sa_type=sa.Text, primary_key=True)  # type: ignore[no-any-return]


def _text() -> str:
    return Field(sa_type=sa.Text)  # type: ignore[no-any-return]


def _number_key() -> int:
    return Field(sa_type=sa.BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})  # type: ignore[no-any-return]


def _number() -> int:
    return Field(sa_type=sa.BigInteger)  # type: ignore[no-any-return]


class CounterRow(_Base, table=True):
    """Numbers without gaps: taken in the transaction that uses them."""

    __tablename__ = "counters"

    project: str = _key()
    model: str = _key()
    kind: str = _key()
    value: int = _number()


class ModelRow(_Base, table=True):
    """Models; `stages` and `gates` are JSON."""

    __tablename__ = "models"

    project: str = _key()
    model: str = _key()
    task: str = _text()
    description: str = _text()
    stages: str = _text()
    gates: str = _text()
    create_us: int = _number()
    update_us: int = _number()
    revision: int = _number()


class VersionRow(_Base, table=True):
    """Model versions; `files`, `labels` and `metrics` are JSON."""

    __tablename__ = "versions"
    __table_args__ = (sa.Index("ix_versions_commit", "project", "model", "commit_id", "number"),)

    project: str = _key()
    model: str = _key()
    number: int = _number_key()
    format: str = _text()
    files: str = _text()
    input_spec: str = _text()
    output_spec: str = _text()
    commit_id: str = _text()
    run: str = _text()
    labels: str = _text()
    metrics: str = _text()
    description: str = _text()
    creator: str = _text()
    create_us: int = _number()
    traceparent: str = _text()


class AliasRow(_Base, table=True):
    """Movable names of versions."""

    __tablename__ = "aliases"

    project: str = _key()
    model: str = _key()
    alias: str = _key()
    number: int = _number()
    revision: int = _number()
    update_us: int = _number()


class VariantRow(_Base, table=True):
    """Variants; `graph` and `details` are JSON. `sequence` orders what is made below a model."""

    __tablename__ = "variants"
    __table_args__ = (sa.Index("ix_variants_sequence", "project", "model", "number", "sequence"),)

    project: str = _key()
    model: str = _key()
    number: int = _number_key()
    variant: str = _key()
    recipe: str = _text()
    recipe_digest: str = _text()
    graph: str = _text()
    quantization_profile: str = _text()
    record_digest: str = _text()
    details: str = _text()
    creator: str = _text()
    create_us: int = _number()
    sequence: int = _number()


class ArtifactRow(_Base, table=True):
    """Artifacts; `pin`, `files` and `details` are JSON, the pin's filtered fields are columns."""

    __tablename__ = "artifacts"
    __table_args__ = (sa.Index("ix_artifacts_sequence", "project", "model", "number", "sequence"),)

    project: str = _key()
    model: str = _key()
    number: int = _number_key()
    variant: str = _key()
    artifact: str = _key()
    board: str = _text()
    architecture: str = _text()
    runtime: str = _text()
    pin: str = _text()
    toolchain: str = _text()
    toolchain_version: str = _text()
    files: str = _text()
    manifest_digest: str = _text()
    size_bytes: int = _number()
    record_digest: str = _text()
    details: str = _text()
    creator: str = _text()
    create_us: int = _number()
    sequence: int = _number()


class MeasurementRow(_Base, table=True):
    """Measurements; `artifact` is empty for those of a variant. `figures`, `host` and `details` are JSON."""

    __tablename__ = "measurements"
    __table_args__ = (sa.Index("ix_measurements_sequence", "project", "model", "number", "sequence"),)

    project: str = _key()
    model: str = _key()
    number: int = _number_key()
    variant: str = _key()
    artifact: str = _key()
    measurement: str = _key()
    kind: str = _text()
    figures: str = _text()
    origin: str = _text()
    board: str = _text()
    host: str = _text()
    threads: int = _number()
    dataset: str = _text()
    record_digest: str = _text()
    details: str = _text()
    creator: str = _text()
    create_us: int = _number()
    sequence: int = _number()


class ReleaseRow(_Base, table=True):
    """Releases; `entries` is JSON."""

    __tablename__ = "releases"

    project: str = _key()
    model: str = _key()
    number: int = _number_key()
    version: int = _number()
    entries: str = _text()
    index_digest: str = _text()
    description: str = _text()
    creator: str = _text()
    create_us: int = _number()
    traceparent: str = _text()


class StageRow(_Base, table=True):
    """Stages; `release` and `promotion` are 0 when the stage is empty."""

    __tablename__ = "stages"

    project: str = _key()
    model: str = _key()
    stage: str = _key()
    release: int = _number()
    rung: int = _number()
    promotion: int = _number()
    revision: int = _number()
    update_us: int = _number()


class PromotionRow(_Base, table=True):
    """Every change of a stage; `verdicts` is JSON."""

    __tablename__ = "promotions"

    project: str = _key()
    model: str = _key()
    number: int = _number_key()
    kind: str = _text()
    stage: str = _text()
    release: int = _number()
    previous_release: int = _number()
    base: int = _number()
    reason: str = _text()
    verdicts: str = _text()
    actor: str = _text()
    create_us: int = _number()


class EdgeRow(_Base, table=True):
    """Lineage: `from_id` went into `to_id`; ids are digests or resource names."""

    __tablename__ = "lineage_edges"
    __table_args__ = (sa.Index("ix_lineage_edges_to", "project", "to_id"),)

    project: str = _key()
    from_id: str = _key()
    to_id: str = _key()
    role: str = _key()


class StepRow(_Base, table=True):
    """The digests that are step records, and what kind of step."""

    __tablename__ = "lineage_steps"

    project: str = _key()
    record_digest: str = _key()
    kind: str = _text()
    create_us: int = _number()


class AuditRow(_Base, table=True):
    """Who did what; written in the transaction of the deed."""

    __tablename__ = "audit_events"
    __table_args__ = (sa.Index("ix_audit_events_project", "project", "id"), {"sqlite_autoincrement": True})

    id: int = Field(sa_type=sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)
    project: str = _text()
    actor: str = _text()
    service: str = _text()
    method: str = _text()
    resource: str = _text()
    reason: str = _text()
    create_us: int = _number()


schema.declare(METADATA)
blob_tables.declare(METADATA)
