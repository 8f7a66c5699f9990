"""Lineage leads from a step's record to what names it, also for what was made before."""

from alembic import op

revision = "0003_record_edges"
down_revision = "0002_blobs"

_VARIANT = (
    "'projects/' || project || '/models/' || model || '/versions/' || number || '/variants/' || variant"
)
_NAMES = {
    "variants": _VARIANT,
    "artifacts": f"{_VARIANT} || '/artifacts/' || artifact",
    "measurements": (
        f"{_VARIANT} || CASE artifact WHEN '' THEN '' ELSE '/artifacts/' || artifact END"
        " || '/measurements/' || measurement"
    ),
}


def upgrade() -> None:
    """Add the edges that are not there."""
    for table, name in _NAMES.items():
        op.execute(
            "INSERT INTO lineage_edges (project, from_id, to_id, role)"
            f" SELECT project, record_digest, {name}, 'record' FROM {table} WHERE record_digest <> ''"
            " ON CONFLICT DO NOTHING"
        )


def downgrade() -> None:
    """Take them out again."""
    op.execute("DELETE FROM lineage_edges WHERE role = 'record' AND to_id LIKE 'projects/%'")
