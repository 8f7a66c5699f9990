"""Rows to domain objects and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from boardwright.calibration.domain.dataset import (
    Dataset,
    DatasetKey,
    DatasetVersion,
    Invalid,
    Sample,
    State,
    VersionKey,
)
from boardwright.calibration.domain.statistics import Statistics
from boardwright.content import canonical_json
from boardwright.database import Row
from boardwright.samples.labels import label_from_json, label_to_json


def to_text(value: Any) -> str:
    """Canonical JSON as text."""
    return canonical_json(value).decode()


def dataset(row: Row) -> Dataset:
    """A dataset."""
    return Dataset(
        DatasetKey(row["project"], row["dataset"]), row["task"], row["description"], row["create_us"]
    )


def version(row: Row) -> DatasetVersion:
    """A version; the row has its dataset's `task` too."""
    statistics = row["statistics"]
    return DatasetVersion(
        key=VersionKey(DatasetKey(row["project"], row["dataset"]), row["number"]),
        row_id=row["id"],
        task=row["task"],
        state=State(row["state"]),
        classes=tuple(json.loads(row["classes"])),
        sample_count=row["sample_count"],
        labelled_count=row["labelled_count"],
        size_bytes=row["size_bytes"],
        manifest_digest=row["manifest_digest"],
        statistics=Statistics.from_json(json.loads(statistics)) if statistics else None,
        left_out=tuple(Invalid(*entry) for entry in json.loads(row["left_out"])),
        creator=row["creator"],
        create_us=row["create_us"],
        seal_us=row["seal_us"],
    )


def sample(row: Row) -> Sample:
    """A sample."""
    return Sample(
        name_of(row["key"]),
        row["digest"],
        row["size_bytes"],
        row["media_type"],
        row["pack_digest"],
        row["pack_offset"],
        label_from_json(json.loads(row["label"])),
    )


def key_of(version_id: int, name: str) -> str:
    """A sample's key."""
    return f"{version_id}/{name}"


def name_of(key: str) -> str:
    """The sample's name in its key."""
    return key.partition("/")[2]


def sample_values(version_id: int, sequence: int, value: Sample) -> Mapping[str, Any]:
    """The columns of a new sample."""
    return {
        "version": version_id,
        "sequence": sequence,
        "key": key_of(version_id, value.name),
        "digest": value.digest,
        "size": value.size_bytes,
        "type": value.media_type,
        "pack": value.pack_digest,
        "offset": value.pack_offset,
        "label": label_text(value),
    }


def label_text(value: Sample) -> str:
    """A sample's label as it is stored."""
    return to_text(label_to_json(value.label))
