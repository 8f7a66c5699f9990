"""The Blobs API's tables."""

from alembic import op

from boardwright.registry.storage import blob_tables

revision = "0002_blobs"
down_revision = "0001_registry"


def upgrade() -> None:
    """Create the tables."""
    blob_tables.create(op)


def downgrade() -> None:
    """Drop them again."""
    blob_tables.drop(op)
