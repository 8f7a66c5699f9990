"""What the service needs from outside itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from boardwright.calibration.domain.dataset import (
    Dataset,
    DatasetKey,
    DatasetVersion,
    Invalid,
    Sample,
    VersionKey,
)
from boardwright.calibration.domain.statistics import ImageFigures, Statistics
from boardwright.database.listing import Page


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose deed a change is, through which service ("" when directly), and for which method."""

    actor: str
    service: str
    method: str


@dataclass(frozen=True, slots=True)
class RequestId:
    """A create's `request_id` ("" for none) and the fingerprint of the whole request."""

    id: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the audit log."""

    id: int
    actor: str
    service: str
    method: str
    resource: str
    create_us: int


@dataclass(frozen=True, slots=True)
class NumberedSample:
    """A sample and its place in the order of adding, from 0."""

    sequence: int
    sample: Sample


@dataclass(frozen=True, slots=True)
class InspectedBatch:
    """The outcome of inspecting the samples `first` to `last`: figures of the good, reasons of the bad."""

    first: int
    last: int
    statistics: Statistics
    labelled: int
    invalid: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Inspected:
    """All batches of a version added up. `next` is the first sample not inspected; `invalid` names a few."""

    next: int
    statistics: Statistics
    labelled: int
    invalid_count: int
    invalid: tuple[Invalid, ...]


class Repository(Protocol):
    """Datasets in the service's own database. Every method is one transaction, audit and event within."""

    async def create_dataset(self, dataset: Dataset, caller: Caller, request: RequestId) -> Dataset: ...

    async def dataset(self, key: DatasetKey) -> Dataset: ...

    async def datasets(self, project: str, page: Page) -> tuple[list[Dataset], str]: ...

    async def create_version(
        self, key: DatasetKey, classes: tuple[str, ...], caller: Caller, request: RequestId, now_us: int
    ) -> DatasetVersion: ...

    async def version(self, key: VersionKey) -> DatasetVersion: ...

    async def latest_sealed(self, key: DatasetKey) -> DatasetVersion: ...

    async def versions(self, key: DatasetKey, page: Page) -> tuple[list[DatasetVersion], str]: ...

    async def known_packs(self, version: DatasetVersion, digests: Collection[str]) -> dict[str, int]: ...

    async def add_samples(
        self,
        version: DatasetVersion,
        samples: Sequence[Sample],
        packs: Mapping[str, int],
        caller: Caller,
        now_us: int,
    ) -> tuple[int, int]:
        """Add what is new; return how many, and how many there are. `packs`: size by digest of new packs."""

    async def samples(self, version: DatasetVersion, page: Page) -> tuple[list[Sample], str]: ...

    async def samples_from(self, version: DatasetVersion, start: int, limit: int) -> list[NumberedSample]: ...

    async def inspected(self, version: DatasetVersion, named: int) -> Inspected: ...

    async def record_inspection(self, version: DatasetVersion, batch: InspectedBatch) -> int:
        """Record a batch if it is the next one; return the first sample that is not inspected then."""

    async def valid_packs(self, version: DatasetVersion) -> list[tuple[str, int]]:
        """Digest and size of the packs that hold a valid sample, sorted by digest."""

    async def valid_samples_after(self, version: DatasetVersion, name: str, limit: int) -> list[Sample]:
        """Valid samples sorted by name, those after `name`."""

    async def seal(
        self,
        version: DatasetVersion,
        inspected: Inspected,
        manifest_digest: str,
        caller: Caller,
        now_us: int,
    ) -> DatasetVersion | None:
        """Make the version immutable; None when samples were added since the inspection."""

    async def audit_events(self, project: str, page: Page) -> tuple[list[AuditEvent], str]: ...


class Blobs(Protocol):
    """The project's blobs, on behalf of a caller."""

    async def sizes(self, project: str, digests: Collection[str], actor: str) -> dict[str, int]:
        """Size by digest of those that are visible. Raises: Unavailable, StoreUnavailable."""

    async def fetch(self, project: str, digest: str, path: Path, actor: str) -> None:
        """Write a blob to a file. Raises: NotFound BLOB_NOT_FOUND, StoreUnavailable, OSError."""

    async def store(self, project: str, path: Path, actor: str) -> str:
        """Make a file's content a blob; return its digest. Raises: StoreUnavailable, StoreFull."""

    async def hold(self, project: str, reference: str, digests: Collection[str], actor: str) -> None:
        """Keep blobs from collection under a name. Raises: NotFound BLOB_NOT_FOUND."""


class Inspection(Protocol):
    """One confined process."""

    async def inspect(self, sample: Sample, pack: Path) -> ImageFigures | str: ...


class Inspections(Protocol):
    """Makes confined processes."""

    def __call__(self) -> AbstractAsyncContextManager[Inspection]: ...
