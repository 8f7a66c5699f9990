"""Model versions and their aliases."""

from __future__ import annotations

from boardwright.database import Transaction
from boardwright.database.filters import Field
from boardwright.database.listing import Listing
from boardwright.registry.domain.resources import Alias, ModelKey, ModelVersion
from boardwright.registry.ports import Page
from boardwright.registry.storage.rows import encode, to_alias, to_version

_VERSIONS = Listing(
    "versions",
    "number",
    {
        "number": Field("number", "number"),
        "format": Field("format"),
        "create_time": Field("create_us", "time"),
        "creator": Field("creator"),
        "commit": Field("commit_id"),
        "labels": Field("labels", "map"),
    },
)
_ALIASES = Listing("aliases", "alias", {}, descending=False)


def insert_version(tx: Transaction, version: ModelVersion) -> None:
    """Store a new version under its number."""
    tx.execute(
        "INSERT INTO versions (project, model, number, format, files, input_spec, output_spec,"
        " commit_id, run,"
        " labels, metrics, description, creator, create_us, traceparent) VALUES (:project, :model, :number,"
        " :format, :files, :input_spec, :output_spec, :commit_id, :run, :labels, :metrics, :description,"
        " :creator, :create_us, :traceparent)",
        project=version.key.project,
        model=version.key.model,
        number=version.number,
        format=version.format,
        files=encode(version.files),
        input_spec=version.input_spec,
        output_spec=version.output_spec,
        commit_id=version.commit,
        run=version.run,
        labels=encode(version.labels),
        metrics=encode(version.metrics),
        description=version.description,
        creator=version.creator,
        create_us=version.create_us,
        traceparent=version.traceparent,
    )


def find_version(tx: Transaction, key: ModelKey, number: int) -> ModelVersion | None:
    """A version by its number, or None."""
    row = tx.one(
        "SELECT * FROM versions WHERE project = :project AND model = :model AND number = :number",
        project=key.project,
        model=key.model,
        number=number,
    )
    return None if row is None else to_version(row)


def version_exists(tx: Transaction, key: ModelKey, number: int) -> bool:
    """Whether there is such a version."""
    sql = "SELECT 1 AS found FROM versions WHERE project = :project AND model = :model AND number = :number"
    return tx.one(sql, project=key.project, model=key.model, number=number) is not None


def newest_version(tx: Transaction, key: ModelKey) -> ModelVersion | None:
    """The version with the highest number, or None."""
    row = tx.one(
        "SELECT * FROM versions WHERE project = :project AND model = :model ORDER BY number DESC LIMIT 1",
        project=key.project,
        model=key.model,
    )
    return None if row is None else to_version(row)


def version_of_alias(tx: Transaction, key: ModelKey, alias: str) -> ModelVersion | None:
    """The version that an alias points at, or None."""
    row = tx.one(
        "SELECT v.* FROM aliases a JOIN versions v"
        " ON v.project = a.project AND v.model = a.model AND v.number = a.number"
        " WHERE a.project = :project AND a.model = :model AND a.alias = :alias",
        project=key.project,
        model=key.model,
        alias=alias,
    )
    return None if row is None else to_version(row)


def list_versions(tx: Transaction, key: ModelKey, page: Page) -> tuple[list[ModelVersion], str]:
    """Newest first."""
    return _VERSIONS.read(tx, page, to_version, {"project": key.project, "model": key.model})


def fix_specs(tx: Transaction, version: ModelVersion) -> None:
    """Store the specs of a version that has none."""
    tx.execute(
        "UPDATE versions SET input_spec = :input_spec, output_spec = :output_spec"
        " WHERE project = :project AND model = :model AND number = :number",
        project=version.key.project,
        model=version.key.model,
        number=version.number,
        input_spec=version.input_spec,
        output_spec=version.output_spec,
    )


def find_alias(tx: Transaction, key: ModelKey, alias: str) -> Alias | None:
    """An alias, or None."""
    row = tx.one(
        "SELECT * FROM aliases WHERE project = :project AND model = :model AND alias = :alias",
        project=key.project,
        model=key.model,
        alias=alias,
    )
    return None if row is None else to_alias(row)


def store_alias(tx: Transaction, alias: Alias) -> None:
    """Create or move an alias."""
    tx.execute(
        "INSERT INTO aliases (project, model, alias, number, revision, update_us)"
        " VALUES (:project, :model, :alias, :number, :revision, :update_us)"
        " ON CONFLICT (project, model, alias) DO UPDATE SET number = excluded.number,"
        " revision = excluded.revision, update_us = excluded.update_us",
        project=alias.key.project,
        model=alias.key.model,
        alias=alias.alias,
        number=alias.number,
        revision=alias.revision,
        update_us=alias.update_us,
    )


def delete_alias(tx: Transaction, alias: Alias) -> None:
    """Remove an alias."""
    tx.execute(
        "DELETE FROM aliases WHERE project = :project AND model = :model AND alias = :alias",
        project=alias.key.project,
        model=alias.key.model,
        alias=alias.alias,
    )


def list_aliases(tx: Transaction, key: ModelKey, page: Page) -> tuple[list[Alias], str]:
    """By id."""
    return _ALIASES.read(tx, page, to_alias, {"project": key.project, "model": key.model})
