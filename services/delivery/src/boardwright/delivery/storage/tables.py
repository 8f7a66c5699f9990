"""The delivery service's tables. Columns `…_us` are microseconds since 1970; TEXT named as JSON holds it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from boardwright.database import schema

METADATA = sa.MetaData()


class _Base(SQLModel):
    """Binds the tables to delivery's own MetaData."""

    metadata = METADATA


def _key() -> str:
    return Field(sa_type=sa.Text, primary_key=True)  # type: ignore[no-any-return]


def _text() -> str:
    return Field(sa_type=sa.Text)  # type: ignore[no-any-return]


def _number() -> int:
    return Field(sa_type=sa.BigInteger)  # type: ignore[no-any-return]


class FleetRow(_Base, table=True):
    """Fleets."""

    __tablename__ = "fleets"

    project: str = _key()
    fleet: str = _key()
    model: str = _text()
    stage: str = _text()
    description: str = _text()
    create_us: int = _number()


class TokenRow(_Base, table=True):
    """One-time enrolment tokens; `public_key` and `device` are "" until used."""

    __tablename__ = "enrolment_tokens"

    token: str = _key()
    project: str = _text()
    fleet: str = _text()
    secret_hash: str = _text()
    root_version: int = _number()
    expire_us: int = _number()
    public_key: str = _text()
    device: str = _text()
    creator: str = _text()
    create_us: int = _number()


class DeviceRow(_Base, table=True):
    """Devices; `host` is JSON. `board` repeats a member of it for filters."""

    __tablename__ = "devices"

    project: str = _key()
    fleet: str = _key()
    device: str = _key()
    state: str = _text()
    public_key: str = _text()
    key_id: str = _text()
    host: str = _text()
    board: str = _text()
    agent_version: str = _text()
    release: str = _text()
    bundle_digest: str = _text()
    rollout: str = _text()
    slot: str = _text()
    refusal_reason: str = _text()
    refusal_message: str = _text()
    refusal_release: str = _text()
    refusal_rollout: str = _text()
    enrol_us: int = _number()
    last_seen_us: int = _number()
    install_us: int = _number()


class NonceRow(_Base, table=True):
    """Nonces of devices, kept as long as their timestamps would be accepted."""

    __tablename__ = "nonces"

    project: str = _key()
    fleet: str = _key()
    device: str = _key()
    nonce: str = _key()
    keep_until_us: int = _number()


class ReportRow(_Base, table=True):
    """What devices said; `details` is JSON."""

    __tablename__ = "reports"

    project: str = _key()
    fleet: str = _key()
    device: str = _key()
    number: int = Field(sa_type=sa.BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    kind: str = _text()
    release: str = _text()
    bundle_digest: str = _text()
    reason: str = _text()
    message: str = _text()
    details: str = _text()
    create_us: int = _number()
    traceparent: str = _text()


class BundleRow(_Base, table=True):
    """Bundles; `pin` and `files` are JSON, `manifest` is the OCI manifest."""

    __tablename__ = "bundles"
    __table_args__ = (sa.Index("ix_bundles_release", "project", "release"),)

    project: str = _key()
    digest: str = _key()
    release: str = _text()
    artifact: str = _text()
    board: str = _text()
    pin: str = _text()
    size_bytes: int = _number()
    files: str = _text()
    manifest: str = _text()
    create_us: int = _number()


class BundleFileRow(_Base, table=True):
    """Which blobs a bundle holds."""

    __tablename__ = "bundle_files"

    project: str = _key()
    digest: str = _key()
    bundle: str = _key()
    size_bytes: int = _number()


class RolloutRow(_Base, table=True):
    """Rollouts. `sequence` orders those of a project; `fleet_name` is the resource name, for filters.

    `choices` is JSON: of each board with several artifacts, their order and why.
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        sa.UniqueConstraint("project", "sequence", name="uq_rollouts_sequence"),
        sa.Index("ix_rollouts_fleet", "project", "fleet", "sequence"),
    )

    project: str = _key()
    rollout: str = _key()
    sequence: int = _number()
    fleet: str = _text()
    fleet_name: str = _text()
    release: str = _text()
    state: str = _text()
    reason: str = _text()
    creator: str = _text()
    create_us: int = _number()
    update_us: int = _number()
    revision: int = _number()
    traceparent: str = _text()
    choices: str = Field(sa_type=sa.Text, sa_column_kwargs={"server_default": "[]"})
    state_reason: str = Field(sa_type=sa.Text, sa_column_kwargs={"server_default": ""})


class AuditEventRow(_Base, table=True):
    """Who did what."""

    __tablename__ = "audit_events"
    __table_args__ = (sa.Index("ix_audit_events_project", "project", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(
        default=None,
        sa_type=sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
    )
    project: str = _text()
    actor: str = _text()
    service: str = _text()
    method: str = _text()
    resource: str = _text()
    reason: str = _text()
    create_us: int = _number()


schema.declare(METADATA)
