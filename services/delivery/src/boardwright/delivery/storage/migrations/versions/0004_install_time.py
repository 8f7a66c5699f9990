"""Since when a device runs what it runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004_install_time"
down_revision = "0003_state_reason"


def upgrade() -> None:
    """Add the column; what is installed already is told by the report that said so first."""
    op.add_column("devices", sa.Column("install_us", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE devices SET install_us = COALESCE((SELECT MAX(r.create_us) FROM reports r"
        " WHERE r.project = devices.project AND r.fleet = devices.fleet AND r.device = devices.device"
        " AND r.kind = 'installed' AND r.bundle_digest = devices.bundle_digest), 0)"
        " WHERE bundle_digest <> ''"
    )


def downgrade() -> None:
    """Drop it again."""
    op.drop_column("devices", "install_us")
