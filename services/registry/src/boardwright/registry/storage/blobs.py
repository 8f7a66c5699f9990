"""The Blobs API's rows. `hold` and `unseen` serve other transactions that need content kept."""

from __future__ import annotations

from collections.abc import Iterable

from boardwright.content.digest import Digest
from boardwright.database import Database, Row, Transaction
from boardwright.registry.domain.blobs import BlobRecord, Condemned, UploadRecord

_SEEN = (
    "SELECT v.project, v.digest, b.size_bytes, v.created_us, v.keep_until_us"
    " FROM blob_visibility v JOIN blobs b ON b.digest = v.digest"
    " WHERE v.project = :project AND v.digest = :digest"
)

_REFERENCED = (
    "EXISTS (SELECT 1 FROM blob_references r WHERE r.project = {0}.project AND r.digest = {0}.digest)"
)
# What nobody keeps: in no project is it young enough or referenced, and nobody is about to store it.
_UNKEPT = (
    "b.state <> 'deleting' AND b.claim_until_us < :now AND NOT EXISTS (SELECT 1 FROM blob_visibility v"
    f" WHERE v.digest = b.digest AND (v.keep_until_us >= :now OR {_REFERENCED.format('v')}))"
)
_TO_DELETE = f"({_UNKEPT} OR (b.state = 'deleting' AND b.deleting_us < :takeover))"
_TO_HIDE = f"keep_until_us < :now AND NOT {_REFERENCED.format('blob_visibility')}"


def unseen(tx: Transaction, project: str, digests: Iterable[Digest]) -> list[Digest]:
    """Those of the digests that the project does not see, in order."""
    wanted = sorted(set(digests))
    return [d for d in wanted if tx.one(_SEEN, project=project, digest=str(d)) is None]


def hold(
    tx: Transaction, project: str, reference: str, digests: Iterable[Digest], keep_until_us: int
) -> list[Digest]:
    """Let a named reference hold exactly these blobs, within a transaction of the caller's.

    What it held before and lets go of lives at least until `keep_until_us` (microseconds since the epoch).

    Returns: the digests that the project does not see; if there is one, nothing was changed.
    """
    wanted = set(digests)
    missing = unseen(tx, project, wanted)
    if missing:
        return missing
    held = {
        Digest.parse(row["digest"])
        for row in tx.all(
            "SELECT digest FROM blob_references WHERE project = :project AND reference = :reference",
            project=project,
            reference=reference,
        )
    }
    for digest in sorted(held - wanted):
        tx.execute(
            "DELETE FROM blob_references"
            " WHERE project = :project AND reference = :reference AND digest = :digest",
            project=project,
            reference=reference,
            digest=str(digest),
        )
        _renew(tx, project, digest, keep_until_us)
    for digest in sorted(wanted - held):
        tx.execute(
            "INSERT INTO blob_references (project, reference, digest) VALUES (:project, :reference, :digest)"
            " ON CONFLICT DO NOTHING",
            project=project,
            reference=reference,
            digest=str(digest),
        )
    return []


class SqlBlobRepository:
    """The repository on a `Database` (implements `BlobRepository`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, project: str, digest: Digest) -> BlobRecord | None:
        row = await self._database.read(lambda tx: tx.one(_SEEN, project=project, digest=str(digest)))
        return None if row is None else _blob(row)

    async def renew(self, project: str, digest: Digest, keep_until_us: int) -> bool:
        return await self._database.write(lambda tx: _renew(tx, project, digest, keep_until_us))

    async def claim(self, digest: Digest, size_bytes: int, now_us: int, claim_until_us: int) -> bool:
        def claim(tx: Transaction) -> bool:
            changed = tx.execute(
                "INSERT INTO blobs (digest, size_bytes, state, claim_until_us, deleting_us)"
                " VALUES (:digest, :size_bytes, 'storing', :claim_until_us, 0)"
                " ON CONFLICT (digest) DO UPDATE SET claim_until_us = excluded.claim_until_us"
                " WHERE blobs.state <> 'deleting'",
                digest=str(digest),
                size_bytes=size_bytes,
                claim_until_us=claim_until_us,
            )
            return changed > 0

        return await self._database.write(claim, key=str(digest))

    async def publish(
        self, project: str, digest: Digest, size_bytes: int, now_us: int, keep_until_us: int, upload: str = ""
    ) -> BlobRecord:
        def publish(tx: Transaction) -> BlobRecord:
            tx.execute(
                "UPDATE blobs SET state = 'present', size_bytes = :size_bytes, claim_until_us = :now"
                " WHERE digest = :digest",
                digest=str(digest),
                size_bytes=size_bytes,
                now=now_us,
            )
            tx.execute(
                "INSERT INTO blob_visibility (project, digest, created_us, keep_until_us)"
                " VALUES (:project, :digest, :now, :keep_until_us)"
                " ON CONFLICT (project, digest) DO NOTHING",
                project=project,
                digest=str(digest),
                now=now_us,
                keep_until_us=keep_until_us,
            )
            _renew(tx, project, digest, keep_until_us)
            if upload:
                tx.execute("UPDATE uploads SET completed = 1 WHERE upload = :upload", upload=upload)
            row = tx.one(_SEEN, project=project, digest=str(digest))
            if row is None:
                raise LookupError(f"{digest} was published without being claimed")
            return _blob(row)

        return await self._database.write(publish, key=str(digest))

    async def add_upload(self, record: UploadRecord) -> None:
        await self._database.write(
            lambda tx: tx.execute(
                "INSERT INTO uploads (upload, project, principal, digest, size_bytes, handle,"
                " created_us, expires_us, completed) VALUES (:upload, :project, :principal, :digest,"
                " :size_bytes, :handle, :created_us, :expires_us, :completed)",
                upload=record.upload,
                project=record.project,
                principal=record.principal,
                digest=str(record.digest),
                size_bytes=record.size_bytes,
                handle=record.handle,
                created_us=record.created_us,
                expires_us=record.expires_us,
                completed=int(record.completed),
            )
        )

    async def upload(self, project: str, upload: str) -> UploadRecord | None:
        row = await self._database.read(
            lambda tx: tx.one(
                "SELECT * FROM uploads WHERE upload = :upload AND project = :project",
                upload=upload,
                project=project,
            )
        )
        return None if row is None else _upload(row)

    async def open_upload(
        self, project: str, principal: str, digest: Digest, size_bytes: int, now_us: int
    ) -> UploadRecord | None:
        row = await self._database.read(
            lambda tx: tx.one(
                "SELECT * FROM uploads WHERE digest = :digest AND project = :project"
                " AND principal = :principal AND size_bytes = :size_bytes AND completed = 0"
                " AND expires_us > :now ORDER BY created_us LIMIT 1",
                digest=str(digest),
                project=project,
                principal=principal,
                size_bytes=size_bytes,
                now=now_us,
            )
        )
        return None if row is None else _upload(row)

    async def remove_upload(self, upload: str) -> None:
        await self._database.write(
            lambda tx: tx.execute("DELETE FROM uploads WHERE upload = :upload", upload=upload)
        )

    async def expired_uploads(self, now_us: int, limit: int) -> list[UploadRecord]:
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT * FROM uploads WHERE expires_us <= :now ORDER BY expires_us LIMIT :limit",
                now=now_us,
                limit=limit,
            )
        )
        return [_upload(row) for row in rows]

    async def set_reference(
        self, project: str, reference: str, digests: frozenset[Digest], keep_until_us: int
    ) -> list[Digest]:
        return await self._database.write(
            lambda tx: hold(tx, project, reference, digests, keep_until_us), key=f"{project}/{reference}"
        )

    async def collectable(self, now_us: int) -> tuple[int, int, int]:
        def count(tx: Transaction) -> tuple[int, int, int]:
            blobs = tx.one(
                "SELECT COUNT(*) AS number, COALESCE(SUM(b.size_bytes), 0) AS size_bytes"
                f" FROM blobs b WHERE {_UNKEPT}",
                now=now_us,
            )
            uploads = tx.one("SELECT COUNT(*) AS number FROM uploads WHERE expires_us <= :now", now=now_us)
            return (
                int(blobs["number"]) if blobs else 0,
                int(blobs["size_bytes"]) if blobs else 0,
                int(uploads["number"]) if uploads else 0,
            )

        return await self._database.read(count)

    async def condemn(
        self, now_us: int, takeover_us: int, after: str, limit: int
    ) -> tuple[list[Condemned], str]:
        bounds = {"now": now_us, "takeover": takeover_us}

        def look(tx: Transaction) -> tuple[list[Row], list[Row], str]:
            slice_ = tx.all(
                "SELECT digest FROM blobs WHERE digest > :after ORDER BY digest LIMIT :limit",
                after=after,
                limit=limit,
            )
            ends = {"after": after, "last": slice_[-1]["digest"] if slice_ else after}
            within = "digest > :after AND digest <= :last"
            to_hide = tx.all(
                f"SELECT project, digest FROM blob_visibility WHERE {within} AND {_TO_HIDE}",
                now=now_us,
                **ends,
            )
            to_delete = tx.all(
                f"SELECT b.digest AS digest FROM blobs b WHERE {within} AND {_TO_DELETE}", **bounds, **ends
            )
            return to_hide, to_delete, ends["last"] if len(slice_) == limit else ""

        # Looking at all that is kept is a read, so that it holds up nobody's write; what it found is judged
        # once more where it is condemned.
        to_hide, to_delete, last = await self._database.read(look)

        def condemn(tx: Transaction) -> list[Condemned]:
            for row in to_hide:
                tx.execute(
                    "DELETE FROM blob_visibility"
                    f" WHERE project = :project AND digest = :digest AND {_TO_HIDE}",
                    project=row["project"],
                    digest=row["digest"],
                    now=now_us,
                )
            condemned = []
            for row in to_delete:
                blob = tx.one(
                    "UPDATE blobs SET state = 'deleting', deleting_us = :now WHERE digest ="
                    f" (SELECT b.digest FROM blobs b WHERE b.digest = :digest AND {_TO_DELETE})"
                    " RETURNING digest, size_bytes",
                    digest=row["digest"],
                    **bounds,
                )
                if blob is not None:
                    condemned.append(Condemned(Digest.parse(blob["digest"]), blob["size_bytes"]))
            return condemned

        if not to_hide and not to_delete:
            return [], last
        return await self._database.write(condemn), last

    async def bury(self, digest: Digest) -> None:
        await self._database.write(
            lambda tx: tx.execute(
                "DELETE FROM blobs WHERE digest = :digest AND state = 'deleting'", digest=str(digest)
            ),
            key=str(digest),
        )


def _renew(tx: Transaction, project: str, digest: Digest, keep_until_us: int) -> bool:
    tx.execute(
        "UPDATE blob_visibility SET keep_until_us = :keep_until_us"
        " WHERE project = :project AND digest = :digest AND keep_until_us < :keep_until_us",
        project=project,
        digest=str(digest),
        keep_until_us=keep_until_us,
    )
    return tx.one(_SEEN, project=project, digest=str(digest)) is not None


def _blob(row: Row) -> BlobRecord:
    return BlobRecord(
        row["project"],
        Digest.parse(row["digest"]),
        row["size_bytes"],
        row["created_us"],
        row["keep_until_us"],
    )


def _upload(row: Row) -> UploadRecord:
    return UploadRecord(
        row["upload"],
        row["project"],
        row["principal"],
        Digest.parse(row["digest"]),
        row["size_bytes"],
        row["handle"],
        row["created_us"],
        row["expires_us"],
        bool(row["completed"]),
    )
