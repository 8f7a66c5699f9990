"""What the compiler needs of the other services, in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from boardwright.compiler.domain.plan import Given
from boardwright.compiler.domain.profiles import BoardProfile
from boardwright.database import Transaction
from boardwright.jobs.domain.job import Job


@dataclass(frozen=True, slots=True)
class FileOfVersion:
    """A file of a pushed checkpoint."""

    path: str
    content: Given


@dataclass(frozen=True, slots=True)
class Version:
    """A ModelVersion as the compiler needs it. Specs are JSON text, empty until declared or fixed.

    ``traceparent`` is the W3C trace context of its push.
    """

    name: str
    number: int
    format: str
    files: tuple[FileOfVersion, ...]
    task: str = ""
    input_spec_json: str = ""
    output_spec_json: str = ""
    traceparent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownVariant:
    """A Variant that is registered already."""

    graph_digest: str
    quantization_profile: str


@dataclass(frozen=True, slots=True)
class NewVariant:
    """A Variant to register below a version."""

    variant: str
    recipe: str
    recipe_digest: str
    graph: FileOfVersion
    quantization_profile: str
    record_digest: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewMeasurement:
    """Figures to register of a Variant. ``host`` is the machine that ran them, as detected."""

    kind: str
    values: Mapping[str, float]
    dataset: str
    record_digest: str
    details: Mapping[str, Any]
    host: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A finished step for the lineage graph: digests by name."""

    record_digest: str
    kind: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class Registry(Protocol):
    """The registry service. Every call is made on behalf of ``principal``.

    Every method raises Unavailable when the registry is away, and what the registry itself refuses with.
    """

    async def get_version(self, name: str, principal: str) -> Version:
        """Return a version. Raises: NotFound VERSION_NOT_FOUND."""
        ...

    async def read(self, project: str, digest: str, principal: str) -> bytes:
        """Return the content of a blob. Raises: NotFound BLOB_NOT_FOUND."""
        ...

    async def fix_specs(self, version: str, input_json: str, output_json: str, principal: str) -> None:
        """Fix the specs that import derived. Raises: FailedPrecondition SPEC_FIXED."""
        ...

    async def find_variant(self, name: str, principal: str) -> KnownVariant | None:
        """Return a Variant; None where there is none of this name."""
        ...

    async def create_variant(self, version: str, new: NewVariant, request_id: str, principal: str) -> str:
        """Register a Variant; return its name. Raises: AlreadyExists VARIANT_EXISTS."""
        ...

    async def create_measurement(
        self, parent: str, new: NewMeasurement, request_id: str, principal: str
    ) -> str:
        """Register figures of a Variant; return the Measurement's name."""
        ...

    async def record_step(self, project: str, record: StepRecord, principal: str) -> None:
        """Add a step to the lineage graph; the same step again is no error."""
        ...


class Journal(Protocol):
    """Where every change of a job is written down, in the transaction that makes it."""

    def record(self, tx: Transaction, job: Job) -> None:
        """Write the audit record and the outbox event of the job's state."""
        ...


class Datasets(Protocol):
    """The calibration service."""

    async def get_sealed(self, name: str, principal: str) -> SealedDataset:
        """Return a sealed dataset version.

        Raises:
            NotFound: DATASET_NOT_FOUND.
            FailedPrecondition: DATASET_NOT_SEALED.
            Unavailable: the service is away.
        """
        ...


class Boards(Protocol):
    """The builder's board catalogue."""

    async def get_profile(self, board: str, principal: str) -> BoardProfile:
        """Return the quantization profile of a board. Raises: NotFound BOARD_NOT_FOUND, Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class SealedDataset:
    """A sealed dataset version: its full name (a number, never "latest") and its manifest's digest."""

    name: str
    manifest_digest: str
