"""The Blobs API's tables: `declare(METADATA)` in tables.py, `create(op)` and `drop(op)` in the migration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa


def declare(metadata: sa.MetaData) -> list[sa.Table]:
    """Declare `blobs`, `blob_visibility`, `blob_references` and `uploads`; return them."""
    import sqlalchemy as sa

    return [
        sa.Table(
            "blobs",
            metadata,
            sa.Column("digest", sa.Text, primary_key=True),
            sa.Column("size_bytes", sa.BigInteger, nullable=False),
            # storing: announced, perhaps not in the store yet; present; deleting: a collection removes it
            sa.Column("state", sa.Text, nullable=False),
            sa.Column("claim_until_us", sa.BigInteger, nullable=False),
            sa.Column("deleting_us", sa.BigInteger, nullable=False),
        ),
        sa.Table(
            "blob_visibility",
            metadata,
            sa.Column("project", sa.Text, primary_key=True),
            sa.Column("digest", sa.Text, primary_key=True),
            sa.Column("created_us", sa.BigInteger, nullable=False),
            sa.Column("keep_until_us", sa.BigInteger, nullable=False),
            sa.Index("ix_blob_visibility_digest", "digest"),
            sa.Index("ix_blob_visibility_keep_until", "keep_until_us"),
        ),
        sa.Table(
            "blob_references",
            metadata,
            sa.Column("project", sa.Text, primary_key=True),
            sa.Column("reference", sa.Text, primary_key=True),
            sa.Column("digest", sa.Text, primary_key=True),
            sa.Index("ix_blob_references_digest", "digest", "project"),
        ),
        sa.Table(
            "uploads",
            metadata,
            sa.Column("upload", sa.Text, primary_key=True),
            sa.Column("project", sa.Text, nullable=False),
            sa.Column("principal", sa.Text, nullable=False),
            sa.Column("digest", sa.Text, nullable=False),
            sa.Column("size_bytes", sa.BigInteger, nullable=False),
            sa.Column("handle", sa.Text, nullable=False),
            sa.Column("created_us", sa.BigInteger, nullable=False),
            sa.Column("expires_us", sa.BigInteger, nullable=False),
            sa.Column("completed", sa.Integer, nullable=False),
            sa.Index("ix_uploads_digest", "digest", "project"),
            sa.Index("ix_uploads_expires", "expires_us"),
        ),
    ]


def create(op: Any) -> None:
    """Create the tables in a migration."""
    import sqlalchemy as sa

    for table in declare(sa.MetaData()):
        table.create(op.get_bind())


def drop(op: Any) -> None:
    """Drop them again."""
    for name in ("uploads", "blob_references", "blob_visibility", "blobs"):
        op.drop_table(name)
