"""Sealing: every sample is decoded, the statistics add up, the manifest is written, the version is closed.

Samples are inspected in batches, each recorded in a transaction of its own: a seal that was interrupted
goes on behind the last recorded batch, and a sample is decoded once. Samples are only ever added, so what
was inspected stays true. Memory is constant: one batch of samples, a few packs on disk, the manifest
streamed to a file.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boardwright.calibration import errors, names
from boardwright.calibration.domain.dataset import DatasetVersion, Invalid, Sample, State, VersionKey
from boardwright.calibration.domain.statistics import Statistics
from boardwright.calibration.ports import (
    Blobs,
    Caller,
    Inspected,
    InspectedBatch,
    Inspection,
    Inspections,
    NumberedSample,
    Repository,
)
from boardwright.samples.manifest import (
    ManifestSample,
    PackEntry,
    manifest_entry,
    manifest_head,
    manifest_tail,
)

BATCH = 256
NAMED_AT_MOST = 100
"""Left out samples that a version lists."""
_PACKS_HERE = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a seal is; `version` comes with the last one."""

    done: int
    total: int
    version: DatasetVersion | None = None


def _now_us() -> int:
    return time.time_ns() // 1000


class Sealer:
    """Seals versions.

    Args:
        folder: for packs and manifests in the making; nothing in it outlives a seal.
        batch: samples between two records of progress.
        at_a_time: seals that inspect at the same time, each with a process of its own; more wait.
    """

    def __init__(
        self,
        repository: Repository,
        blobs: Blobs,
        inspections: Inspections,
        folder: Path,
        *,
        batch: int = BATCH,
        at_a_time: int = 2,
        now_us: Callable[[], int] = _now_us,
    ) -> None:
        self._repository = repository
        self._blobs = blobs
        self._inspections = inspections
        self._folder = folder
        self._batch = batch
        self._now_us = now_us
        self._turns = asyncio.Semaphore(at_a_time)

    async def seal(
        self, key: VersionKey, skip_invalid: bool, caller: Caller, left_out: Sequence[Invalid] = ()
    ) -> AsyncIterator[Progress]:
        """Seal a version, telling its progress; a sealed one is answered at once.

        Args:
            left_out: what the caller did not even add; the version lists it before what is invalid here.

        Raises: NotFound DATASET_VERSION_NOT_FOUND, FailedPrecondition DATASET_EMPTY, SAMPLES_CORRUPT.
        """
        version = await self._repository.version(key)
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            while version.state is State.OPEN:
                if version.sample_count == 0:
                    raise errors.dataset_empty(names.version_name(key))
                async for progress in self._inspect(version, Path(place), caller):
                    yield progress
                inspected = await self._repository.inspected(version, NAMED_AT_MOST)
                self._judge(version, inspected, skip_invalid)
                named = replace(inspected, invalid=(*left_out, *inspected.invalid)[:NAMED_AT_MOST])
                manifest = await self._write_manifest(version, Path(place), caller)
                sealed = await self._repository.seal(version, named, manifest, caller, self._now_us())
                # None: samples came meanwhile; they are inspected too, and the manifest is written again.
                version = sealed or await self._repository.version(key)
        yield Progress(version.sample_count, version.sample_count, version)

    def _judge(self, version: DatasetVersion, inspected: Inspected, skip_invalid: bool) -> None:
        name = names.version_name(version.key)
        if inspected.invalid_count and not skip_invalid:
            named = [(entry.sample, entry.reason) for entry in inspected.invalid]
            raise errors.samples_corrupt(name, named, inspected.invalid_count)
        if inspected.statistics.count == 0:
            raise errors.dataset_empty(name, inspected.invalid_count)

    async def _inspect(self, version: DatasetVersion, place: Path, caller: Caller) -> AsyncIterator[Progress]:
        start = (await self._repository.inspected(version, 0)).next
        packs = _Packs(self._blobs, version.key.dataset.project, place, caller.actor)
        yield Progress(start, version.sample_count)
        async with self._turns, self._inspections() as inspection:
            while start < version.sample_count:
                batch = await self._repository.samples_from(version, start, self._batch)
                outcome = await _inspect_batch(batch, inspection, packs)
                start = await self._repository.record_inspection(version, outcome)
                yield Progress(min(start, version.sample_count), version.sample_count)
        packs.clear()

    async def _write_manifest(self, version: DatasetVersion, place: Path, caller: Caller) -> str:
        packs = await self._repository.valid_packs(version)
        entries = [PackEntry(digest, size) for digest, size in packs]
        numbers = {digest: number for number, (digest, _) in enumerate(packs)}
        path = place / "manifest.json"
        with path.open("wb") as file:
            file.write(manifest_head(version.classes, entries))
            after = ""
            while page := await self._repository.valid_samples_after(version, after, self._batch):
                lines = b",".join(manifest_entry(_manifest_sample(sample, numbers)) for sample in page)
                file.write(b"," + lines if after else lines)
                after = page[-1].name
            file.write(manifest_tail(version.task))
        project = version.key.dataset.project
        digest = await self._blobs.store(project, path, caller.actor)
        await self._blobs.hold(project, f"calibration-{version.row_id}-manifest", [digest], caller.actor)
        return digest


async def _inspect_batch(
    batch: Sequence[NumberedSample], inspection: Inspection, packs: _Packs
) -> InspectedBatch:
    statistics, labelled = Statistics(), 0
    invalid: list[tuple[int, str]] = []
    # By pack, not by place: content that several packs' samples share would else fetch packs in turns.
    for numbered in sorted(batch, key=lambda numbered: numbered.sample.pack_digest):
        sample = numbered.sample
        pack = await packs.path(sample.pack_digest)
        outcome = await inspection.inspect(sample, pack)
        if isinstance(outcome, str):
            invalid.append((numbered.sequence, outcome))
            continue
        statistics = statistics.merge(Statistics.of(outcome, sample.size_bytes, sample.class_ids()))
        labelled += sample.label is not None
    return InspectedBatch(batch[0].sequence, batch[-1].sequence, statistics, labelled, invalid)


class _Packs:
    """The packs in use, on disk: a few of them, since samples come nearly in the order of their packs."""

    def __init__(self, blobs: Blobs, project: str, place: Path, actor: str) -> None:
        self._blobs, self._project, self._actor = blobs, project, actor
        self._place = place
        self._here: list[str] = []

    async def path(self, digest: str) -> Path:
        """The pack's file. Raises: NotFound BLOB_NOT_FOUND, StoreUnavailable, OSError."""
        path = self._place / f"{digest.removeprefix('sha256:')}.tar"
        if digest in self._here:
            return path
        while len(self._here) >= _PACKS_HERE:
            self._delete(self._here[0])
        await self._blobs.fetch(self._project, digest, path, self._actor)
        self._here.append(digest)
        return path

    def clear(self) -> None:
        """Delete the files."""
        while self._here:
            self._delete(self._here[0])

    def _delete(self, digest: str) -> None:
        self._here.remove(digest)
        (self._place / f"{digest.removeprefix('sha256:')}.tar").unlink(missing_ok=True)


def _manifest_sample(sample: Sample, numbers: dict[str, int]) -> ManifestSample:
    return ManifestSample(
        sample.name,
        sample.digest,
        sample.size_bytes,
        sample.media_type,
        numbers[sample.pack_digest],
        sample.pack_offset,
        sample.label,
    )
