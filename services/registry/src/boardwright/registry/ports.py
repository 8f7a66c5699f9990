"""What the registry's services need from outside themselves.

The stores work inside a transaction that the service began. `storage` implements each of them as a module of
plain functions; `app.py` hands them in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from boardwright.database import Transaction
from boardwright.database.listing import Page as Page
from boardwright.registry.domain.lineage import Direction, Edge
from boardwright.registry.domain.resources import (
    Alias,
    Artifact,
    AuditEvent,
    Measurement,
    Model,
    ModelKey,
    ModelVersion,
    Promotion,
    Release,
    Stage,
    Variant,
)


class ModelStore(Protocol):
    """Models, their stages and promotions."""

    def insert_model(self, tx: Transaction, model: Model, /) -> bool:
        """Store a new model and its empty stages; False if the id is taken."""

    def update_model(self, tx: Transaction, model: Model, revision: int, /) -> bool:
        """Store `model` over the one at `revision`; False if that is no longer current."""

    def model_exists(self, tx: Transaction, key: ModelKey, /) -> bool:
        """Whether there is such a model."""

    def find_model(self, tx: Transaction, key: ModelKey, /) -> Model | None:
        """The model, or None."""

    def list_models(self, tx: Transaction, project: str, page: Page, /) -> tuple[list[Model], str]:
        """By id, and the next page's token."""

    def insert_stage(self, tx: Transaction, stage: Stage, /) -> None:
        """Store a new stage; the id must be free."""

    def update_stage(self, tx: Transaction, stage: Stage, /) -> None:
        """Store the new state of a stage that was read in this transaction."""

    def delete_stage(self, tx: Transaction, key: ModelKey, stage: str, /) -> None:
        """Remove an empty stage."""

    def find_stage(self, tx: Transaction, key: ModelKey, stage: str, /) -> Stage | None:
        """The stage with its gates, or None."""

    def list_stages(self, tx: Transaction, key: ModelKey, /) -> list[Stage]:
        """The ladder, lowest rung first."""

    def insert_promotion(self, tx: Transaction, record: Promotion, /) -> None:
        """Add to the history."""

    def find_promotion(self, tx: Transaction, key: ModelKey, number: int, /) -> Promotion | None:
        """A promotion by its number, or None."""

    def list_promotions(self, tx: Transaction, key: ModelKey, page: Page, /) -> tuple[list[Promotion], str]:
        """Newest first, and the next page's token."""


class VersionStore(Protocol):
    """Versions and aliases."""

    def insert_version(self, tx: Transaction, version: ModelVersion, /) -> None:
        """Store a new version under its number."""

    def find_version(self, tx: Transaction, key: ModelKey, number: int, /) -> ModelVersion | None:
        """A version by its number, or None."""

    def version_exists(self, tx: Transaction, key: ModelKey, number: int, /) -> bool:
        """Whether there is such a version."""

    def newest_version(self, tx: Transaction, key: ModelKey, /) -> ModelVersion | None:
        """The version with the highest number, or None."""

    def version_of_alias(self, tx: Transaction, key: ModelKey, alias: str, /) -> ModelVersion | None:
        """The version that an alias points at, or None."""

    def list_versions(self, tx: Transaction, key: ModelKey, page: Page, /) -> tuple[list[ModelVersion], str]:
        """Newest first, and the next page's token."""

    def fix_specs(self, tx: Transaction, version: ModelVersion, /) -> None:
        """Store the specs of a version."""

    def find_alias(self, tx: Transaction, key: ModelKey, alias: str, /) -> Alias | None:
        """An alias, or None."""

    def store_alias(self, tx: Transaction, alias: Alias, /) -> None:
        """Create or move an alias."""

    def delete_alias(self, tx: Transaction, alias: Alias, /) -> None:
        """Remove an alias."""

    def list_aliases(self, tx: Transaction, key: ModelKey, page: Page, /) -> tuple[list[Alias], str]:
        """By id, and the next page's token."""


class VariantStore(Protocol):
    """Variants, artifacts, measurements."""

    def insert_variant(self, tx: Transaction, variant: Variant, /) -> None:
        """Store a new variant."""

    def find_variant(self, tx: Transaction, key: ModelKey, number: int, variant: str, /) -> Variant | None:
        """A variant, or None."""

    def list_variants(
        self, tx: Transaction, key: ModelKey, number: int, page: Page, /
    ) -> tuple[list[Variant], str]:
        """Newest first, and the next page's token."""

    def insert_artifact(self, tx: Transaction, artifact: Artifact, /) -> None:
        """Store a new artifact."""

    def find_artifact(
        self, tx: Transaction, key: ModelKey, number: int, variant: str, artifact: str, /
    ) -> Artifact | None:
        """An artifact, or None."""

    def list_artifacts(
        self, tx: Transaction, key: ModelKey, number: int, variant: str, page: Page, /
    ) -> tuple[list[Artifact], str]:
        """Newest first, of every variant where `variant` is ""; and the next page's token."""

    def insert_measurement(self, tx: Transaction, figure: Measurement, /) -> None:
        """Store a new measurement."""

    def find_measurement(
        self, tx: Transaction, key: ModelKey, number: int, variant: str, artifact: str, measurement: str, /
    ) -> Measurement | None:
        """A measurement, or None; `artifact` is "" for one of a variant."""

    def list_measurements(
        self, tx: Transaction, key: ModelKey, number: int, variant: str, artifact: str, page: Page, /
    ) -> tuple[list[Measurement], str]:
        """Everything below, newest first, and the next page's token."""

    def figures_for_gates(self, tx: Transaction, key: ModelKey, number: int, /) -> list[Measurement]:
        """A version's accuracies and latencies, newest first."""


class ReleaseStore(Protocol):
    """Releases."""

    def insert_release(self, tx: Transaction, release: Release, /) -> None:
        """Store a new release under its number."""

    def find_release(self, tx: Transaction, key: ModelKey, number: int, /) -> Release | None:
        """A release by its number, or None."""

    def newest_release(self, tx: Transaction, key: ModelKey, /) -> Release | None:
        """The release with the highest number, or None."""

    def list_releases(self, tx: Transaction, key: ModelKey, page: Page, /) -> tuple[list[Release], str]:
        """Newest first, and the next page's token."""


class LineageStore(Protocol):
    """The graph of what was made of what."""

    def add_edges(self, tx: Transaction, project: str, edges: Iterable[Edge], /) -> None:
        """Add edges; those that are there stay as they are."""

    def add_step(self, tx: Transaction, project: str, record_digest: str, kind: str, now_us: int, /) -> bool:
        """Remember that a digest is a step's record; False if it was known."""

    def edges_of(
        self, tx: Transaction, project: str, ids: Sequence[str], direction: Direction, /
    ) -> list[Edge]:
        """The edges that end (ancestors) or begin (descendants) at any of `ids`."""

    def step_kinds(self, tx: Transaction, project: str, ids: Sequence[str], /) -> dict[str, str]:
        """The step kinds of those of `ids` that are step records."""


class JournalStore(Protocol):
    """The audit log, and the numbers that the database gives out."""

    def next_number(self, tx: Transaction, key: ModelKey, kind: str, /) -> int:
        """The next number of `kind` ("version", "release", …) of a model, from 1, without gaps."""

    def add_audit_event(self, tx: Transaction, event: AuditEvent, /) -> None:
        """Record a deed."""

    def list_audit_events(self, tx: Transaction, project: str, page: Page, /) -> tuple[list[AuditEvent], str]:
        """Newest first, and the next page's token."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything that the registry keeps, but for blobs."""

    models: ModelStore
    versions: VersionStore
    variants: VariantStore
    releases: ReleaseStore
    lineage: LineageStore
    journal: JournalStore


class BlobReferences(Protocol):
    """The blobs of a project, inside the transaction that refers to them."""

    def sizes(self, tx: Transaction, project: str, digests: Collection[str]) -> Mapping[str, int]:
        """Size in bytes of those of `digests` ("sha256:<hex>") that are visible in the project."""

    def hold(self, tx: Transaction, project: str, holder: str, digests: Collection[str]) -> None:
        """Keep the blobs from collection while the resource named `holder` exists (which is for ever)."""


class Documents(Protocol):
    """Small blobs that the registry makes itself (release indexes)."""

    async def store(self, project: str, data: bytes, media_type: str) -> str:
        """Store a document and make it visible in the project; return its digest.

        Raises: StoreUnavailable, StoreFull (boardwright.content).
        """
