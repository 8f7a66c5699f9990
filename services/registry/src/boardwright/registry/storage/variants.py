"""Variants, the artifacts built from them, and the measurements of both."""

from __future__ import annotations

from typing import get_args

from boardwright.database import Transaction
from boardwright.database.filters import Field
from boardwright.database.listing import Listing
from boardwright.registry.domain.resources import Artifact, Measurement, ModelKey, Origin, Variant
from boardwright.registry.ports import Page
from boardwright.registry.storage.rows import encode, to_artifact, to_measurement, to_variant

_VARIANTS = Listing(
    "variants",
    "sequence",
    {"variant": Field("variant"), "recipe": Field("recipe"), "create_time": Field("create_us", "time")},
)
_ARTIFACTS = Listing(
    "artifacts",
    "sequence",
    {
        "board": Field("board"),
        "architecture": Field("architecture"),
        "runtime": Field("runtime"),
        "toolchain": Field("toolchain"),
        "create_time": Field("create_us", "time"),
    },
)
_MEASUREMENTS = Listing(
    "measurements",
    "sequence",
    {
        "kind": Field("kind"),
        "board": Field("board"),
        "origin": Field("origin", values=get_args(Origin)),
        "dataset": Field("dataset"),
        "create_time": Field("create_us", "time"),
    },
)
_WHERE = " WHERE project = :project AND model = :model AND number = :number"

# More figures of one version than this are never judged at once.
_GATE_LIMIT = 5000


def scope(key: ModelKey, number: int, variant: str = "", artifact: str = "") -> dict[str, str | int]:
    """The columns that name a version, a variant or an artifact."""
    columns: dict[str, str | int] = {"project": key.project, "model": key.model, "number": number}
    if variant:
        columns["variant"] = variant
    if artifact:
        columns["artifact"] = artifact
    return columns


def insert_variant(tx: Transaction, variant: Variant) -> None:
    """Store a new variant."""
    tx.execute(
        "INSERT INTO variants (project, model, number, variant, recipe, recipe_digest, graph,"
        " quantization_profile, record_digest, details, creator, create_us,"
        " sequence) VALUES (:project, :model,"
        " :number, :variant, :recipe, :recipe_digest, :graph, :quantization_profile, :record_digest,"
        " :details,"
        " :creator, :create_us, :sequence)",
        **scope(variant.key, variant.number, variant.variant),
        recipe=variant.recipe,
        recipe_digest=variant.recipe_digest,
        graph=encode(variant.graph),
        quantization_profile=variant.quantization_profile,
        record_digest=variant.record_digest,
        details=variant.details,
        creator=variant.creator,
        create_us=variant.create_us,
        sequence=variant.sequence,
    )


def find_variant(tx: Transaction, key: ModelKey, number: int, variant: str) -> Variant | None:
    """A variant, or None."""
    row = tx.one(f"SELECT * FROM variants{_WHERE} AND variant = :variant", **scope(key, number, variant))
    return None if row is None else to_variant(row)


def list_variants(tx: Transaction, key: ModelKey, number: int, page: Page) -> tuple[list[Variant], str]:
    """Newest first."""
    return _VARIANTS.read(tx, page, to_variant, scope(key, number))


def insert_artifact(tx: Transaction, artifact: Artifact) -> None:
    """Store a new artifact."""
    tx.execute(
        "INSERT INTO artifacts (project, model, number, variant, artifact, board, architecture, runtime, pin,"
        " toolchain, toolchain_version, files, manifest_digest, size_bytes, record_digest, details, creator,"
        " create_us, sequence) VALUES (:project, :model, :number, :variant, :artifact, :board, :architecture,"
        " :runtime, :pin, :toolchain, :toolchain_version, :files, :manifest_digest, :size_bytes,"
        " :record_digest,"
        " :details, :creator, :create_us, :sequence)",
        **scope(artifact.key, artifact.number, artifact.variant, artifact.artifact),
        board=artifact.pin.board,
        architecture=artifact.pin.architecture,
        runtime=artifact.pin.runtime,
        pin=encode(artifact.pin),
        toolchain=artifact.toolchain,
        toolchain_version=artifact.toolchain_version,
        files=encode(artifact.files),
        manifest_digest=artifact.manifest_digest,
        size_bytes=artifact.size_bytes,
        record_digest=artifact.record_digest,
        details=artifact.details,
        creator=artifact.creator,
        create_us=artifact.create_us,
        sequence=artifact.sequence,
    )


def find_artifact(
    tx: Transaction, key: ModelKey, number: int, variant: str, artifact: str
) -> Artifact | None:
    """An artifact, or None."""
    row = tx.one(
        f"SELECT * FROM artifacts{_WHERE} AND variant = :variant AND artifact = :artifact",
        **scope(key, number, variant, artifact),
    )
    return None if row is None else to_artifact(row)


def list_artifacts(
    tx: Transaction, key: ModelKey, number: int, variant: str, page: Page
) -> tuple[list[Artifact], str]:
    """Newest first; of every variant where `variant` is ""."""
    return _ARTIFACTS.read(tx, page, to_artifact, scope(key, number, variant))


def insert_measurement(tx: Transaction, figure: Measurement) -> None:
    """Store a new measurement."""
    tx.execute(
        "INSERT INTO measurements (project, model, number, variant, artifact, measurement, kind, figures,"
        " origin, board, host, threads, dataset, record_digest, details, creator, create_us, sequence)"
        " VALUES (:project, :model, :number, :variant, :artifact, :measurement, :kind, :figures, :origin,"
        " :board, :host, :threads, :dataset, :record_digest, :details, :creator, :create_us, :sequence)",
        project=figure.key.project,
        model=figure.key.model,
        number=figure.number,
        variant=figure.variant,
        artifact=figure.artifact,
        measurement=figure.measurement,
        kind=figure.kind,
        figures=encode(figure.values),
        origin=figure.origin,
        board=figure.board,
        host=encode(figure.host),
        threads=figure.threads,
        dataset=figure.dataset,
        record_digest=figure.record_digest,
        details=figure.details,
        creator=figure.creator,
        create_us=figure.create_us,
        sequence=figure.sequence,
    )


def find_measurement(
    tx: Transaction, key: ModelKey, number: int, variant: str, artifact: str, measurement: str
) -> Measurement | None:
    """A measurement, or None; `artifact` is "" for one of a variant."""
    row = tx.one(
        f"SELECT * FROM measurements{_WHERE} AND variant = :variant AND artifact = :artifact"
        " AND measurement = :measurement",
        project=key.project,
        model=key.model,
        number=number,
        variant=variant,
        artifact=artifact,
        measurement=measurement,
    )
    return None if row is None else to_measurement(row)


def list_measurements(
    tx: Transaction, key: ModelKey, number: int, variant: str, artifact: str, page: Page
) -> tuple[list[Measurement], str]:
    """Newest first; everything measured below a version, a variant or an artifact."""
    return _MEASUREMENTS.read(tx, page, to_measurement, scope(key, number, variant, artifact))


def figures_for_gates(tx: Transaction, key: ModelKey, number: int) -> list[Measurement]:
    """A version's accuracies and latencies, newest first."""
    rows = tx.all(
        f"SELECT * FROM measurements{_WHERE} AND kind IN ('accuracy', 'latency')"
        " ORDER BY sequence DESC LIMIT :limit",
        **scope(key, number),
        limit=_GATE_LIMIT,
    )
    return [to_measurement(row) for row in rows]
