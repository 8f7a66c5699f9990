"""Why a rollout was paused, resumed or cancelled stands beside why it was started."""

import sqlalchemy as sa
from alembic import op

revision = "0003_state_reason"
down_revision = "0002_choices"


def upgrade() -> None:
    """Add the column; the one reason that older rollouts have stays where it is."""
    op.add_column("rollouts", sa.Column("state_reason", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop it again."""
    op.drop_column("rollouts", "state_reason")
