"""Jobs that ended long ago are found by an index."""

from alembic import op

from boardwright.jobs.storage import schema as job_schema

revision = "0002_jobs_end"
down_revision = "0001_compiler"


def upgrade() -> None:
    """Add the index."""
    job_schema.index_ends(op)


def downgrade() -> None:
    """It goes with its table."""
