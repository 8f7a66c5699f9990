"""Datasets, versions and samples. `sealing.py` has what makes a version immutable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from boardwright.calibration import errors, names
from boardwright.calibration.domain.dataset import (
    TASKS,
    Dataset,
    DatasetKey,
    DatasetVersion,
    Sample,
    State,
    VersionKey,
    classes_problem,
)
from boardwright.calibration.ports import AuditEvent, Blobs, Caller, Repository, RequestId
from boardwright.database.listing import Page
from boardwright.rpc.errors import InvalidArgument

MAX_SAMPLES_PER_CALL = 2000
MAX_PACK_BYTES = 96 * 1024 * 1024
"""A sample of up to 64 MiB may have a pack of its own."""
_MAX_DESCRIPTION = 10_000


def _now_us() -> int:
    return time.time_ns() // 1000


class CalibrationService:
    """The operations of the API, in the domain's terms."""

    def __init__(self, repository: Repository, blobs: Blobs, now_us: Callable[[], int] = _now_us) -> None:
        self._repository = repository
        self._blobs = blobs
        self._now_us = now_us

    async def create_dataset(
        self, key: DatasetKey, task: str, description: str, caller: Caller, request: RequestId
    ) -> Dataset:
        """Create a dataset. Raises: AlreadyExists DATASET_EXISTS, InvalidArgument FIELD_INVALID."""
        if task not in TASKS:
            raise InvalidArgument(
                "FIELD_INVALID",
                f"task {task[:80]!r} must be classification, detection or empty",
                field="task",
            )
        if len(description) > _MAX_DESCRIPTION:
            raise InvalidArgument(
                "FIELD_INVALID",
                f"description has more than {_MAX_DESCRIPTION} characters",
                field="description",
            )
        dataset = Dataset(key, task, description, self._now_us())
        return await self._repository.create_dataset(dataset, caller, request)

    async def dataset(self, key: DatasetKey) -> Dataset:
        """A dataset. Raises: NotFound DATASET_NOT_FOUND."""
        return await self._repository.dataset(key)

    async def datasets(self, project: str, page: Page) -> tuple[list[Dataset], str]:
        """A page of datasets by id, and the next page's token."""
        return await self._repository.datasets(project, page)

    async def create_version(
        self, key: DatasetKey, classes: Sequence[str], caller: Caller, request: RequestId
    ) -> DatasetVersion:
        """Open the next version. Raises: NotFound DATASET_NOT_FOUND, InvalidArgument FIELD_INVALID."""
        if problem := classes_problem(classes):
            raise InvalidArgument("FIELD_INVALID", f"classes: {problem}", field="classes")
        return await self._repository.create_version(key, tuple(classes), caller, request, self._now_us())

    async def version(self, key: DatasetKey, number: str) -> DatasetVersion:
        """A version by its number or "latest". Raises: NotFound DATASET_VERSION_NOT_FOUND."""
        if number == names.LATEST:
            return await self._repository.latest_sealed(key)
        if not number.isascii() or not number.isdigit() or len(number) > 18:
            raise InvalidArgument(
                "FIELD_INVALID", f"version {number[:80]!r} is neither a number nor latest", field="name"
            )
        return await self._repository.version(VersionKey(key, int(number)))

    async def versions(self, key: DatasetKey, page: Page) -> tuple[list[DatasetVersion], str]:
        """A page of versions, newest first. Raises: NotFound DATASET_NOT_FOUND."""
        return await self._repository.versions(key, page)

    async def add_samples(
        self, key: VersionKey, samples: Sequence[Sample], caller: Caller
    ) -> tuple[int, int]:
        """Add samples to an open version; return how many were new, and how many there are now.

        Raises: FailedPrecondition VERSION_SEALED, NotFound BLOB_NOT_FOUND, AlreadyExists SAMPLE_NAME_USED,
        InvalidArgument SAMPLE_INVALID, LABEL_INVALID, FIELD_INVALID.
        """
        if len(samples) > MAX_SAMPLES_PER_CALL:
            raise InvalidArgument(
                "FIELD_INVALID",
                f"{len(samples)} samples in one call; send at most {MAX_SAMPLES_PER_CALL}",
                field="samples",
            )
        version = await self._repository.version(key)
        if version.state is State.SEALED:
            raise errors.version_sealed(names.version_name(key))
        unique = _checked(samples, version)
        sizes, new = await self._packs(version, unique, caller)
        for sample in unique:
            if sizes[sample.pack_digest] > MAX_PACK_BYTES:
                raise errors.sample_invalid(
                    sample.name, f"its pack has {sizes[sample.pack_digest]} bytes; at most {MAX_PACK_BYTES}"
                )
            if sample.pack_offset + sample.size_bytes > sizes[sample.pack_digest]:
                raise errors.sample_invalid(sample.name, "its bytes lie beyond the end of its pack")
        return await self._repository.add_samples(version, unique, new, caller, self._now_us())

    async def _packs(
        self, version: DatasetVersion, samples: Sequence[Sample], caller: Caller
    ) -> tuple[dict[str, int], dict[str, int]]:
        """The sizes of all packs, and of those that are new to this version (which are held)."""
        wanted = {sample.pack_digest for sample in samples}
        known = await self._repository.known_packs(version, wanted)
        unknown = sorted(wanted - known.keys())
        new: dict[str, int] = {}
        if unknown:
            project = version.key.dataset.project
            new = await self._blobs.sizes(project, unknown, caller.actor)
            if missing := [digest for digest in unknown if digest not in new]:
                raise errors.pack_missing(missing)
            for digest in unknown:
                await self._blobs.hold(project, pack_reference(version, digest), [digest], caller.actor)
        return known | new, new

    async def samples(self, key: VersionKey, page: Page) -> tuple[list[Sample], str]:
        """A page of samples in the order of adding. Raises: NotFound DATASET_VERSION_NOT_FOUND."""
        return await self._repository.samples(await self._repository.version(key), page)

    async def audit_events(self, project: str, page: Page) -> tuple[list[AuditEvent], str]:
        """A page of the audit log, newest first."""
        return await self._repository.audit_events(project, page)


def pack_reference(version: DatasetVersion, digest: str) -> str:
    """The name under which a version holds one of its packs: one each, so that holding stays linear."""
    return f"calibration-{version.row_id}-{digest.removeprefix('sha256:')}"


def _checked(samples: Sequence[Sample], version: DatasetVersion) -> list[Sample]:
    """The samples without repetitions, each found acceptable."""
    by_name: dict[str, Sample] = {}
    for sample in samples:
        if problem := sample.problem():
            raise errors.sample_invalid(sample.name, problem)
        if problem := sample.label_problem(version.task, version.classes):
            raise errors.sample_invalid(sample.name, problem, label=True)
        known = by_name.setdefault(sample.name, sample)
        if (known.digest, known.label) != (sample.digest, sample.label):
            raise errors.sample_name_used(sample.name)
    return list(by_name.values())
