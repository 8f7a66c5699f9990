"""What the builder asks of other services, in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from boardwright.database import Transaction
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.job import Step
from boardwright.model.pins import HardwarePin


@dataclass(frozen=True, slots=True)
class SourceVariant:
    """A variant to build, with its version's InputSpec ("" where none is fixed) and the trace of its push."""

    name: str
    graph: Blob
    quantization_profile: str
    version: str
    input_spec_json: str
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class GoldenDataset:
    """A sealed dataset version: its manifest, and the packs that hold the wanted samples."""

    name: str
    manifest: Blob
    packs: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of an artifact."""

    path: str
    blob: Blob


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """An artifact to register below ``variant``."""

    variant: str
    pin: HardwarePin
    toolchain: str
    toolchain_version: str
    files: tuple[ArtifactFile, ...]
    manifest_digest: str
    record_digest: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BuiltArtifact:
    """A registered artifact."""

    name: str
    pin: HardwarePin
    toolchain: str
    files: tuple[ArtifactFile, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variant_id(self) -> str:
        """``baseline`` of ``projects/p/models/m/versions/1/variants/baseline/artifacts/a``."""
        return self.name.split("/")[7]

    @property
    def short_name(self) -> str:
        """``digits@3 int8 raspberry-pi-5``, for people."""
        parts = self.name.split("/")
        return f"{parts[3]}@{parts[5]} {parts[7]} {self.pin.board}"


@dataclass(frozen=True, slots=True)
class NewMeasurement:
    """A figure to register below ``artifact``. ``origin`` is ``measured`` or ``emulated``."""

    artifact: str
    kind: str
    values: Mapping[str, float]
    origin: str
    board: str
    host: HardwarePin
    threads: int
    record_digest: str
    details: Mapping[str, Any]


class Registry(Protocol):
    """The registry, called on behalf of ``actor``.

    Every method raises Unavailable where the registry is away, NotFound where it does not know the name,
    and PermissionDenied where the actor may not.
    """

    async def variant(self, actor: str, name: str) -> SourceVariant:
        """Return a variant and its version's spec."""
        ...

    async def artifact(self, actor: str, name: str) -> BuiltArtifact:
        """Return an artifact."""
        ...

    async def put_document(self, actor: str, project: str, content: bytes, media_type: str) -> Blob:
        """Store a small document; the same content twice is the same blob."""
        ...

    async def read_document(self, actor: str, project: str, digest: str) -> bytes:
        """Return the content of a document of up to 64 MiB."""
        ...

    async def blob(self, actor: str, project: str, digest: str, media_type: str) -> Blob:
        """Return a blob's size."""
        ...

    async def record_step(self, actor: str, project: str, step: Step) -> None:
        """Add a step that succeeded to the lineage graph; again is no error."""
        ...

    async def create_artifact(self, actor: str, new: NewArtifact, request_id: str) -> str:
        """Register an artifact; the same content again is the same artifact. Returns its name."""
        ...

    async def create_measurement(self, actor: str, new: NewMeasurement, request_id: str) -> str:
        """Register a figure unless the same record's is there already; returns its name."""
        ...


class Datasets(Protocol):
    """The calibration service, called on behalf of ``actor``; errors as ``Registry``'s."""

    async def manifest_digest(self, actor: str, name: str) -> tuple[str, str]:
        """Return a sealed version's name ("latest" resolved) and its manifest's digest.

        Raises:
            FailedPrecondition: DATASET_NOT_SEALED.
        """
        ...


class Audit(Protocol):
    """The audit log."""

    def __call__(self, tx: Transaction, project: str, actor: str, method: str, resource: str) -> None:
        """Record a deed in the transaction that does it."""
        ...


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What CreateBuildJob asks for; ``pin`` holds the overrides that are not empty."""

    project: str
    variant: str
    board: str
    toolchain: str = ""
    golden_dataset: str = ""
    pin: Mapping[str, str] = field(default_factory=dict)
    retry_failed: bool = False


@dataclass(frozen=True, slots=True)
class MeasureOrder:
    """What CreateMeasureJob asks for; 0 runs means the default."""

    project: str
    artifacts: Sequence[str]
    runs: int = 0
    warm_up_runs: int = 0
    again: bool = False
    allow_emulated: bool = False
