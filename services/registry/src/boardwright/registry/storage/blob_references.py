"""What versions, variants, artifacts and releases ask of blobs (`ports.BlobReferences`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from boardwright.database import Transaction

_VISIBLE = (
    "SELECT b.size_bytes FROM blob_visibility v JOIN blobs b ON b.digest = v.digest"
    " WHERE v.project = :project AND v.digest = :digest"
)


class SqlBlobReferences:
    """Over the Blobs API's tables."""

    def sizes(self, tx: Transaction, project: str, digests: Collection[str]) -> Mapping[str, int]:
        """See `ports.BlobReferences`."""
        sizes = {}
        for digest in digests:
            row = tx.one(_VISIBLE, project=project, digest=digest)
            if row is not None:
                sizes[digest] = int(row["size_bytes"])
        return sizes

    def hold(self, tx: Transaction, project: str, holder: str, digests: Collection[str]) -> None:
        """See `ports.BlobReferences`."""
        for digest in digests:
            tx.execute(
                "INSERT INTO blob_references (project, reference, digest)"
                " VALUES (:project, :reference, :digest) ON CONFLICT DO NOTHING",
                project=project,
                reference=holder,
                digest=digest,
            )
