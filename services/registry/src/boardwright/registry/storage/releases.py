"""Releases."""

from __future__ import annotations

from boardwright.database import Transaction
from boardwright.database.filters import Field
from boardwright.database.listing import Listing
from boardwright.registry.domain.resources import ModelKey, Release
from boardwright.registry.ports import Page
from boardwright.registry.storage.rows import encode, to_release

_RELEASES = Listing(
    "releases",
    "number",
    {
        "number": Field("number", "number"),
        "version": Field("version", "number"),
        "create_time": Field("create_us", "time"),
    },
)


def insert_release(tx: Transaction, release: Release) -> None:
    """Store a new release under its number."""
    tx.execute(
        "INSERT INTO releases (project, model, number, version, entries, index_digest, description, creator,"
        " create_us, traceparent) VALUES (:project, :model, :number, :version, :entries, :index_digest,"
        " :description, :creator, :create_us, :traceparent)",
        project=release.key.project,
        model=release.key.model,
        number=release.number,
        version=release.version,
        entries=encode(release.entries),
        index_digest=release.index_digest,
        description=release.description,
        creator=release.creator,
        create_us=release.create_us,
        traceparent=release.traceparent,
    )


def find_release(tx: Transaction, key: ModelKey, number: int) -> Release | None:
    """A release by its number, or None."""
    row = tx.one(
        "SELECT * FROM releases WHERE project = :project AND model = :model AND number = :number",
        project=key.project,
        model=key.model,
        number=number,
    )
    return None if row is None else to_release(row)


def newest_release(tx: Transaction, key: ModelKey) -> Release | None:
    """The release with the highest number, or None."""
    row = tx.one(
        "SELECT * FROM releases WHERE project = :project AND model = :model ORDER BY number DESC LIMIT 1",
        project=key.project,
        model=key.model,
    )
    return None if row is None else to_release(row)


def list_releases(tx: Transaction, key: ModelKey, page: Page) -> tuple[list[Release], str]:
    """Newest first."""
    return _RELEASES.read(tx, page, to_release, {"project": key.project, "model": key.model})
