"""The jobs tables."""

from alembic import op

from boardwright.jobs.storage import schema

revision = "0001_jobs"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    schema.create(op)


def downgrade() -> None:
    """Drop the tables."""
    schema.drop(op)
