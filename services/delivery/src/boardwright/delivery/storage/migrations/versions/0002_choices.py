"""Rollouts keep which of several artifacts of one board goes first."""

import sqlalchemy as sa
from alembic import op

revision = "0002_choices"
down_revision = "0001_delivery"


def upgrade() -> None:
    """Add the column; the rollouts that there are have nothing chosen."""
    op.add_column("rollouts", sa.Column("choices", sa.Text(), nullable=False, server_default="[]"))


def downgrade() -> None:
    """Drop it again."""
    op.drop_column("rollouts", "choices")
