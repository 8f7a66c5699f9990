"""Samples and their inspection in SQL.

Every call's cost depends on what it is given, not on the version's size.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from boardwright.calibration import errors
from boardwright.calibration.domain.dataset import DatasetVersion, Invalid, Sample, State
from boardwright.calibration.domain.statistics import Statistics
from boardwright.calibration.ports import Inspected, InspectedBatch, NumberedSample
from boardwright.calibration.storage import rows
from boardwright.database import Row, Transaction, filters, paging
from boardwright.database.listing import Page

_LOOK_UP = 100
_FIELDS = {"class_id": filters.Field("class_id", "number")}


def known_packs(tx: Transaction, version_id: int, digests: Collection[str]) -> dict[str, int]:
    """Size by digest of those packs that the version has already."""
    found: dict[str, int] = {}
    for values, marks in _chunks(sorted(digests)):
        query = f"SELECT digest, size_bytes FROM packs WHERE version_id = :version AND digest IN ({marks})"
        found |= {row["digest"]: row["size_bytes"] for row in tx.all(query, version=version_id, **values)}
    return found


def add(tx: Transaction, version: DatasetVersion, new: Sequence[Sample], packs: Mapping[str, int]) -> int:
    """Add the samples whose names are new; return how many. Raises: AlreadyExists SAMPLE_NAME_USED."""
    known: dict[str, Row] = {}
    _prefer_indexes(tx)
    for values, marks in _chunks([rows.key_of(version.row_id, sample.name) for sample in new]):
        query = f"SELECT key, digest, label FROM samples WHERE key IN ({marks})"
        known |= {rows.name_of(row["key"]): row for row in tx.all(query, **values)}
    for sample in new:
        row = known.get(sample.name)
        if row and (row["digest"] != sample.digest or row["label"] != rows.label_text(sample)):
            raise errors.sample_name_used(sample.name)
    added = [sample for sample in new if sample.name not in known]
    if not added:
        return 0
    first = _count(tx, version.row_id, added)
    tx.execute_many(
        "INSERT INTO packs (version_id, digest, size_bytes) VALUES (:version, :digest, :size)"
        " ON CONFLICT DO NOTHING",
        [{"version": version.row_id, "digest": digest, "size": size} for digest, size in packs.items()],
    )
    tx.execute_many(
        "INSERT INTO samples (version_id, sequence, key, digest, size_bytes, media_type, pack_digest,"
        " pack_offset, label, problem) VALUES (:version, :sequence, :key, :digest, :size, :type, :pack,"
        " :offset, :label, '')",
        [rows.sample_values(version.row_id, first + n, sample) for n, sample in enumerate(added)],
    )
    tx.execute_many(
        "INSERT INTO sample_classes (version_id, class_id, sequence) VALUES (:version, :class, :sequence)",
        [
            {"version": version.row_id, "class": class_id, "sequence": first + n}
            for n, sample in enumerate(added)
            for class_id in sorted(set(sample.class_ids()))
        ],
    )
    return len(added)


def _count(tx: Transaction, version_id: int, added: Sequence[Sample]) -> int:
    """Count the samples into the version; return the first one's sequence."""
    row = tx.one(
        "UPDATE versions SET added = added + :count, sample_count = sample_count + :count,"
        " labelled_count = labelled_count + :labelled, size_bytes = size_bytes + :size"
        " WHERE id = :version RETURNING added",
        version=version_id,
        count=len(added),
        labelled=sum(sample.label is not None for sample in added),
        size=sum(sample.size_bytes for sample in added),
    )
    return (row["added"] if row else 0) - len(added)


def page_of(tx: Transaction, version: DatasetVersion, page: Page) -> tuple[list[Sample], str]:
    """A page in the order of adding; of a sealed version without what was left out."""
    size = paging.page_size(page.size)
    scope = ("samples", str(version.row_id), page.filter)
    after = paging.decode(page.token, *scope)
    condition = filters.to_condition(page.filter, _FIELDS, tx.dialect)
    chosen = " AND problem = ''" if version.state is State.SEALED else ""
    if page.filter.strip():
        chosen += (
            " AND sequence IN (SELECT sequence FROM sample_classes"
            f" WHERE version_id = :version AND {condition.sql})"
        )
    found = tx.all(
        f"SELECT * FROM samples WHERE version_id = :version AND sequence > :after{chosen}"
        " ORDER BY sequence LIMIT :limit",
        version=version.row_id,
        after=after[0] if after else -1,
        limit=size + 1,
        **condition.parameters,
    )
    listed, token = paging.cut(found, paging.fitting(found, size), lambda row: [row["sequence"]], *scope)
    return [rows.sample(row) for row in listed], token


def numbered_from(tx: Transaction, version_id: int, start: int, limit: int) -> list[NumberedSample]:
    """Samples from a place in the order of adding."""
    found = tx.all(
        "SELECT * FROM samples WHERE version_id = :version AND sequence >= :start"
        " ORDER BY sequence LIMIT :limit",
        version=version_id,
        start=start,
        limit=limit,
    )
    return [NumberedSample(row["sequence"], rows.sample(row)) for row in found]


def record_inspection(tx: Transaction, version_id: int, batch: InspectedBatch) -> int:
    """Record a batch if it is the next one (another seal may have been faster); return what is next then."""
    following = _next_to_inspect(tx, version_id)
    if batch.first != following:
        return following
    tx.execute(
        "INSERT INTO inspections (version_id, first, last, labelled, statistics)"
        " VALUES (:version, :first, :last, :labelled, :statistics)",
        version=version_id,
        first=batch.first,
        last=batch.last,
        labelled=batch.labelled,
        statistics=rows.to_text(batch.statistics.to_json()),
    )
    tx.execute_many(
        "UPDATE samples SET problem = :problem WHERE version_id = :version AND sequence = :sequence",
        [
            {"version": version_id, "sequence": sequence, "problem": problem}
            for sequence, problem in batch.invalid
        ],
    )
    return batch.last + 1


def _next_to_inspect(tx: Transaction, version_id: int) -> int:
    row = tx.one(
        "SELECT last FROM inspections WHERE version_id = :version ORDER BY first DESC LIMIT 1",
        version=version_id,
    )
    return row["last"] + 1 if row else 0


def inspected(tx: Transaction, version_id: int, named: int) -> Inspected:
    """All recorded batches added up, and the first `named` invalid samples."""
    statistics, labelled, following = Statistics(), 0, 0
    for row in tx.all(
        "SELECT last, labelled, statistics FROM inspections WHERE version_id = :version ORDER BY first",
        version=version_id,
    ):
        statistics = statistics.merge(Statistics.from_json(json.loads(row["statistics"])))
        labelled += row["labelled"]
        following = row["last"] + 1
    bad = tx.all(
        "SELECT key, problem FROM samples WHERE version_id = :version AND problem <> ''"
        " ORDER BY sequence LIMIT :limit",
        version=version_id,
        limit=named,
    )
    return Inspected(
        following,
        statistics,
        labelled,
        following - statistics.count,
        tuple(Invalid(rows.name_of(row["key"]), row["problem"]) for row in bad),
    )


def valid_packs(tx: Transaction, version_id: int) -> list[tuple[str, int]]:
    """Digest and size of the packs with a valid sample, sorted by digest."""
    found = tx.all(
        "SELECT p.digest, p.size_bytes FROM packs p JOIN"
        " (SELECT DISTINCT pack_digest FROM samples WHERE version_id = :version AND problem = '') s"
        " ON s.pack_digest = p.digest WHERE p.version_id = :version ORDER BY p.digest",
        version=version_id,
    )
    return sorted((row["digest"], row["size_bytes"]) for row in found)


def valid_after(tx: Transaction, version_id: int, name: str, limit: int) -> list[Sample]:
    """Valid samples by name, those after `name`."""
    _prefer_indexes(tx)
    found = tx.all(
        "SELECT * FROM samples WHERE key > :after AND key < :end AND problem = '' ORDER BY key LIMIT :limit",
        after=rows.key_of(version_id, name),
        end=f"{version_id}0",  # "0" follows "/"
        limit=limit,
    )
    return [rows.sample(row) for row in found]


def _prefer_indexes(tx: Transaction) -> None:
    """Keep PostgreSQL from reading whole tables by a plan that it made while they were small."""
    if tx.dialect == "postgresql":
        tx.execute("SET LOCAL enable_seqscan = off")


def _chunks(values: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Values as parameters and their marks, always as many, so that the statement's text stays the same."""
    marks = ", ".join(f":v{n}" for n in range(_LOOK_UP))
    for start in range(0, len(values), _LOOK_UP):
        chunk = values[start : start + _LOOK_UP]
        padded = [*chunk, *[chunk[-1]] * (_LOOK_UP - len(chunk))]
        yield {f"v{n}": value for n, value in enumerate(padded)}, marks
