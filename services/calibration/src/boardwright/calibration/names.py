"""The service's resource names."""

from __future__ import annotations

from boardwright.calibration.domain.dataset import DatasetKey, VersionKey
from boardwright.rpc.names import NameTemplate

PROJECT = NameTemplate("projects/{project}")
DATASET = NameTemplate("projects/{project}/datasets/{dataset}")
VERSION = NameTemplate("projects/{project}/datasets/{dataset}/versions/{version#}")
VERSION_OR_LATEST = NameTemplate("projects/{project}/datasets/{dataset}/versions/{version*}")
AUDIT_EVENT = NameTemplate("projects/{project}/auditEvents/{event#}")

LATEST = "latest"


def dataset_key(name: str, field: str = "name") -> DatasetKey:
    """The key of a dataset's name. Raises: InvalidArgument FIELD_INVALID."""
    return DatasetKey(*DATASET.parse(name, field))


def version_key(name: str, field: str = "name") -> VersionKey:
    """The key of a version's name, by number. Raises: InvalidArgument FIELD_INVALID."""
    project, dataset, number = VERSION.parse(name, field)
    return VersionKey(DatasetKey(project, dataset), int(number))


def dataset_name(key: DatasetKey) -> str:
    """`projects/{project}/datasets/{dataset}`."""
    return DATASET.format(key.project, key.dataset)


def version_name(key: VersionKey) -> str:
    """A version's name."""
    return VERSION.format(key.dataset.project, key.dataset.dataset, key.number)
