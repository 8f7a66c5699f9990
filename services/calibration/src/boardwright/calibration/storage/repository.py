"""Datasets and versions in SQL. Every method is one transaction; its audit line and event are within."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from boardwright.calibration import errors, names
from boardwright.calibration.domain.dataset import (
    Dataset,
    DatasetKey,
    DatasetVersion,
    Sample,
    State,
    VersionKey,
)
from boardwright.calibration.ports import (
    AuditEvent,
    Caller,
    Inspected,
    InspectedBatch,
    NumberedSample,
    RequestId,
)
from boardwright.calibration.storage import audit, rows, samples
from boardwright.database import Database, Row, Transaction, filters, paging, requests
from boardwright.database.listing import Listing, Page
from boardwright.database.outbox import Outbox

T = TypeVar("T")

_DATASETS = Listing(
    "datasets",
    "dataset",
    {"task": filters.Field("task"), "create_time": filters.Field("create_us", "time")},
    descending=False,
)
_MOST_COMPARED = 200
"""Ids that a wrong one is compared with: comparing takes time that other calls wait for."""
_VERSION_FIELDS = {
    "state": filters.Field("v.state", values=tuple(State)),
    "create_time": filters.Field("v.create_us", "time"),
}
_VERSIONS = (
    "SELECT v.*, d.task FROM versions v"
    " JOIN datasets d ON d.project = v.project AND d.dataset = v.dataset"
    " WHERE v.project = :project AND v.dataset = :dataset"
)


class SqlRepository:
    """Implements `ports.Repository`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def create_dataset(self, dataset: Dataset, caller: Caller, request: RequestId) -> Dataset:
        name = names.dataset_name(dataset.key)

        def write(tx: Transaction) -> Dataset:
            if _repeated(tx, caller, request) is not None:
                return _dataset(tx, dataset.key)
            added = tx.execute(
                "INSERT INTO datasets (project, dataset, task, description, versions, create_us)"
                " VALUES (:project, :dataset, :task, :description, 0, :now) ON CONFLICT DO NOTHING",
                project=dataset.key.project,
                dataset=dataset.key.dataset,
                task=dataset.task,
                description=dataset.description,
                now=dataset.create_us,
            )
            if not added:
                raise errors.dataset_exists(name)
            audit.record(tx, dataset.key.project, caller, name, dataset.create_us)
            self._outbox.append(tx, name, "dataset.created", {"task": dataset.task}, dataset.create_us)
            _remember(tx, caller, request, name)
            return dataset

        return await self._database.write(write, key=name)

    async def dataset(self, key: DatasetKey) -> Dataset:
        return await self._database.read(lambda tx: _dataset(tx, key))

    async def datasets(self, project: str, page: Page) -> tuple[list[Dataset], str]:
        return await self._database.read(
            lambda tx: _DATASETS.read(tx, page, rows.dataset, {"project": project})
        )

    async def create_version(
        self, key: DatasetKey, classes: tuple[str, ...], caller: Caller, request: RequestId, now_us: int
    ) -> DatasetVersion:
        def write(tx: Transaction) -> DatasetVersion:
            repeated = _repeated(tx, caller, request)
            if repeated is not None:
                return _version(tx, names.version_key(repeated))
            _dataset(tx, key)
            version = _open_version(tx, key, classes, caller.actor, now_us)
            name = names.version_name(version)
            audit.record(tx, key.project, caller, name, now_us)
            self._outbox.append(tx, name, "dataset_version.created", {}, now_us)
            _remember(tx, caller, request, name)
            return _version(tx, version)

        return await self._database.write(write, key=names.dataset_name(key))

    async def version(self, key: VersionKey) -> DatasetVersion:
        return await self._database.read(lambda tx: _version(tx, key))

    async def latest_sealed(self, key: DatasetKey) -> DatasetVersion:
        def read(tx: Transaction) -> DatasetVersion:
            row = tx.one(
                f"{_VERSIONS} AND v.state = 'sealed' ORDER BY v.number DESC LIMIT 1",
                project=key.project,
                dataset=key.dataset,
            )
            if row is None:
                _dataset(tx, key)
                raise errors.version_not_found(f"{names.dataset_name(key)}/versions/{names.LATEST}")
            return rows.version(row)

        return await self._database.read(read)

    async def versions(self, key: DatasetKey, page: Page) -> tuple[list[DatasetVersion], str]:
        def read(tx: Transaction) -> tuple[list[DatasetVersion], str]:
            _dataset(tx, key)
            size = paging.page_size(page.size)
            scope = ("versions", names.dataset_name(key), page.filter)
            after = paging.decode(page.token, *scope)
            condition = filters.to_condition(page.filter, _VERSION_FIELDS, tx.dialect)
            found = tx.all(
                f"{_VERSIONS} AND v.number < :after AND {condition.sql} ORDER BY v.number DESC LIMIT :limit",
                project=key.project,
                dataset=key.dataset,
                after=after[0] if after else 2**62,
                limit=size + 1,
                **condition.parameters,
            )
            listed = [rows.version(row) for row in found]
            return paging.cut(
                listed, paging.fitting(found, size), lambda version: [version.key.number], *scope
            )

        return await self._database.read(read)

    async def known_packs(self, version: DatasetVersion, digests: Collection[str]) -> dict[str, int]:
        return await self._database.read(lambda tx: samples.known_packs(tx, version.row_id, digests))

    async def add_samples(
        self,
        version: DatasetVersion,
        new: Sequence[Sample],
        packs: Mapping[str, int],
        caller: Caller,
        now_us: int,
    ) -> tuple[int, int]:
        name = names.version_name(version.key)

        def write(tx: Transaction) -> tuple[int, int]:
            current = _version(tx, version.key)
            if current.state is State.SEALED:
                raise errors.version_sealed(name)
            added = samples.add(tx, current, new, packs)
            if added:
                audit.record(tx, version.key.dataset.project, caller, name, now_us)
                total = current.sample_count + added
                self._outbox.append(
                    tx, name, "dataset_version.samples_added", {"sample_count": total}, now_us
                )
            return added, current.sample_count + added

        return await self._write(version, write)

    async def samples(self, version: DatasetVersion, page: Page) -> tuple[list[Sample], str]:
        return await self._database.read(lambda tx: samples.page_of(tx, version, page))

    async def samples_from(self, version: DatasetVersion, start: int, limit: int) -> list[NumberedSample]:
        return await self._database.read(lambda tx: samples.numbered_from(tx, version.row_id, start, limit))

    async def inspected(self, version: DatasetVersion, named: int) -> Inspected:
        return await self._database.read(lambda tx: samples.inspected(tx, version.row_id, named))

    async def record_inspection(self, version: DatasetVersion, batch: InspectedBatch) -> int:
        return await self._write(version, lambda tx: samples.record_inspection(tx, version.row_id, batch))

    async def valid_packs(self, version: DatasetVersion) -> list[tuple[str, int]]:
        return await self._database.read(lambda tx: samples.valid_packs(tx, version.row_id))

    async def valid_samples_after(self, version: DatasetVersion, name: str, limit: int) -> list[Sample]:
        return await self._database.read(lambda tx: samples.valid_after(tx, version.row_id, name, limit))

    async def seal(
        self,
        version: DatasetVersion,
        inspected: Inspected,
        manifest_digest: str,
        caller: Caller,
        now_us: int,
    ) -> DatasetVersion | None:
        name = names.version_name(version.key)

        def write(tx: Transaction) -> DatasetVersion | None:
            sealed = tx.execute(
                "UPDATE versions SET state = 'sealed', sample_count = :count, labelled_count = :labelled,"
                " size_bytes = :size, manifest_digest = :manifest, statistics = :statistics,"
                " left_out = :left_out, seal_us = :now"
                " WHERE id = :id AND state = 'open' AND added = :added",
                id=version.row_id,
                added=inspected.next,
                count=inspected.statistics.count,
                labelled=inspected.labelled,
                size=inspected.statistics.size_bytes,
                manifest=manifest_digest,
                statistics=rows.to_text(inspected.statistics.to_json()),
                left_out=rows.to_text([[entry.sample, entry.reason] for entry in inspected.invalid]),
                now=now_us,
            )
            if not sealed:
                return None
            audit.record(tx, version.key.dataset.project, caller, name, now_us)
            payload = {"manifest_digest": manifest_digest, "sample_count": inspected.statistics.count}
            self._outbox.append(tx, name, "dataset_version.sealed", payload, now_us)
            return _version(tx, version.key)

        return await self._write(version, write)

    async def audit_events(self, project: str, page: Page) -> tuple[list[AuditEvent], str]:
        return await self._database.read(lambda tx: audit.page_of(tx, project, page))

    async def _write(self, version: DatasetVersion, write: Callable[[Transaction], T]) -> T:
        return await self._database.write(write, key=names.version_name(version.key))


def _dataset(tx: Transaction, key: DatasetKey) -> Dataset:
    row = tx.one(
        "SELECT * FROM datasets WHERE project = :project AND dataset = :dataset",
        project=key.project,
        dataset=key.dataset,
    )
    if row is None:
        known = tx.all(
            "SELECT dataset FROM datasets WHERE project = :project ORDER BY dataset LIMIT :most",
            project=key.project,
            most=_MOST_COMPARED,
        )
        near = difflib.get_close_matches(key.dataset, [entry["dataset"] for entry in known], n=1)
        raise errors.dataset_not_found(names.dataset_name(key), near[0] if near else "")
    return rows.dataset(row)


def _version(tx: Transaction, key: VersionKey) -> DatasetVersion:
    row: Row | None = tx.one(
        f"{_VERSIONS} AND v.number = :number",
        project=key.dataset.project,
        dataset=key.dataset.dataset,
        number=key.number,
    )
    if row is None:
        _dataset(tx, key.dataset)
        raise errors.version_not_found(names.version_name(key))
    return rows.version(row)


def _open_version(
    tx: Transaction, key: DatasetKey, classes: tuple[str, ...], creator: str, now_us: int
) -> VersionKey:
    """Allocate the next number and insert an empty version."""
    counted = tx.one(
        "UPDATE datasets SET versions = versions + 1 WHERE project = :project AND dataset = :dataset"
        " RETURNING versions",
        project=key.project,
        dataset=key.dataset,
    )
    version = VersionKey(key, counted["versions"] if counted else 0)
    tx.execute(
        "INSERT INTO versions (project, dataset, number, state, classes, added, sample_count, labelled_count,"
        " size_bytes, manifest_digest, statistics, left_out, creator, create_us, seal_us) VALUES (:project,"
        " :dataset, :number, 'open', :classes, 0, 0, 0, 0, '', '', '[]', :creator, :now, 0)",
        project=key.project,
        dataset=key.dataset,
        number=version.number,
        classes=rows.to_text(list(classes)),
        creator=creator,
        now=now_us,
    )
    return version


def _repeated(tx: Transaction, caller: Caller, request: RequestId) -> str | None:
    """The name of what this very request created before."""
    answer = requests.recall(tx, caller.actor, caller.method, request.id, request.fingerprint)
    return None if answer is None else str(json.loads(answer)["name"])


def _remember(tx: Transaction, caller: Caller, request: RequestId, name: str) -> None:
    answer = rows.to_text({"name": name}).encode()
    requests.remember(tx, caller.actor, caller.method, request.id, request.fingerprint, answer)
