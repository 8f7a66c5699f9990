"""The tables of jobs, for a service's ``storage/tables.py`` and first migration.

tables.py: ``declare(METADATA)``      migration: ``create(op)`` and ``drop(op)``

Columns ending in ``_us`` are microseconds since the epoch, flags are 0 or 1, JSON is canonical JSON in TEXT
("" where there is none). Only migrations and tests load SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa

_TABLES = ("step_cache", "step_logs", "job_steps", "jobs")


def declare(metadata: sa.MetaData) -> list[sa.Table]:
    """Declare the tables of jobs in a service's metadata; return them."""
    return [_jobs(metadata), _job_steps(metadata), _step_logs(metadata), _step_cache(metadata)]


def create(op: Any) -> None:
    """Create the tables in a migration; ``op`` is Alembic's module or an ``Operations``."""
    import sqlalchemy as sa

    for table in declare(sa.MetaData()):
        table.create(op.get_bind())


def drop(op: Any) -> None:
    """Drop them again."""
    for name in _TABLES:
        op.drop_table(name)


def index_ends(op: Any) -> None:
    """Add the index that finds jobs that ended long ago, where an older version made the tables."""
    op.execute("CREATE INDEX IF NOT EXISTS ix_jobs_finish_us ON jobs (finish_us)")


def _word(name: str, default: str | None = None) -> sa.Column[Any]:
    import sqlalchemy as sa

    server_default = None if default is None else sa.text(f"'{default}'")
    return sa.Column(name, sa.Text, nullable=False, server_default=server_default)


def _number(name: str, default: int = 0) -> sa.Column[Any]:
    import sqlalchemy as sa

    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text(str(default)))


def _jobs(metadata: sa.MetaData) -> sa.Table:
    """One row a job. ``announced`` is the last state that the owner recorded."""
    import sqlalchemy as sa

    return sa.Table(
        "jobs",
        metadata,
        sa.Column("name", sa.Text, primary_key=True),
        _word("project"),
        _word("principal"),
        _word("spec"),
        _word("state"),
        _word("title", ""),
        _word("results", "[]"),
        _word("failure", ""),
        _word("trace", ""),
        _word("announced", ""),
        _number("revision", 1),
        _number("finish_attempts"),
        _number("finish_after_us"),
        _number("create_us"),
        _number("update_us"),
        _number("finish_us"),
        sa.Index("ix_jobs_state", "state", "finish_after_us"),
        sa.Index("ix_jobs_project_create_us", "project", "create_us", "name"),
        sa.Index("ix_jobs_finish_us", "finish_us"),
    )


def _job_steps(metadata: sa.MetaData) -> sa.Table:
    """One row a step. ``inputs`` holds blobs and references, ``resolved`` the blobs once known."""
    import sqlalchemy as sa

    return sa.Table(
        "job_steps",
        metadata,
        sa.Column("job", sa.Text, sa.ForeignKey("jobs.name"), primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
        _word("project"),
        _number("position"),
        *(_word(name) for name in ("kind", "version", "determinism", "parameters", "inputs", "environment")),
        _word("resolved", "{}"),
        _word("board"),
        *(_word(name, "") for name in ("toolchain", "accelerator")),
        *(_number(name) for name in ("memory_bytes", "time_limit_us", "seed", "again")),
        _word("state"),
        _word("cache_key", ""),
        *(_number(name) for name in ("cached", "attempts", "fence")),
        _word("worker", ""),
        *(_number(name) for name in ("ready_us", "lease_expires_us")),
        _word("progress", "{}"),
        *(_word(name, "") for name in ("outcome", "failure")),
        *(_number(name) for name in ("start_us", "finish_us")),
        sa.Index("ix_job_steps_state_ready_us", "state", "ready_us"),
        sa.Index("ix_job_steps_cache_key", "cache_key", "project"),
    )


def _step_logs(metadata: sa.MetaData) -> sa.Table:
    """The end of each step's log, apart from what is read with every step."""
    import sqlalchemy as sa

    return sa.Table(
        "step_logs",
        metadata,
        sa.Column("job", sa.Text, sa.ForeignKey("jobs.name"), primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
        _word("log", ""),
        _number("truncated"),
    )


def _step_cache(metadata: sa.MetaData) -> sa.Table:
    """One row a project's cache key: an outcome, or a remembered deterministic failure (the other is "")."""
    import sqlalchemy as sa

    return sa.Table(
        "step_cache",
        metadata,
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("cache_key", sa.Text, primary_key=True),
        _word("kind"),
        *(_word(name, "") for name in ("outcome", "failure")),
        _number("create_us"),
    )
