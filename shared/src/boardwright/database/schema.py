"""The tables behind `requests` and `outbox`, for a service's `storage/tables.py` and first migration.

tables.py:  `declare(METADATA)`            migration:  `create(op)` and `drop(op)`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa


def declare(metadata: sa.MetaData) -> list[sa.Table]:
    """Declare `requests`, `events` and `event_log` in a service's metadata; return them."""
    import sqlalchemy as sa

    big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return [
        sa.Table(
            "requests",
            metadata,
            sa.Column("principal", sa.Text, primary_key=True),
            sa.Column("method", sa.Text, primary_key=True),
            sa.Column("request_id", sa.Text, primary_key=True),
            sa.Column("fingerprint", sa.Text, nullable=False),
            sa.Column("response", sa.LargeBinary, nullable=False),
            sa.Column("created_us", sa.BigInteger, nullable=False, index=True),
        ),
        sa.Table(
            "events",
            metadata,
            sa.Column("id", big_id, primary_key=True, autoincrement=True),
            sa.Column("transaction_id", sa.BigInteger, nullable=False),
            sa.Column("subject", sa.Text, nullable=False),
            sa.Column("kind", sa.Text, nullable=False),
            sa.Column("payload", sa.Text, nullable=False),
            sa.Column("created_us", sa.BigInteger, nullable=False),
            sa.Index("ix_events_order", "transaction_id", "id"),
            sqlite_autoincrement=True,
        ),
        sa.Table(
            "event_log",
            metadata,
            sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("horizon_transaction", sa.BigInteger, nullable=False),
            sa.Column("horizon_id", sa.BigInteger, nullable=False),
        ),
    ]


def create(op: Any) -> None:
    """Create the three tables in a migration."""
    import sqlalchemy as sa

    for table in declare(sa.MetaData()):
        table.create(op.get_bind())
    op.execute("INSERT INTO event_log (one, horizon_transaction, horizon_id) VALUES (1, 0, 0)")


def drop(op: Any) -> None:
    """Drop them again."""
    for name in ("event_log", "events", "requests"):
        op.drop_table(name)
