"""Which method needs which role. A test compares the table with the proto."""

from __future__ import annotations

from collections.abc import Mapping

from boardwright.rpc.auth import Permission, permits

PERMISSIONS: Mapping[str, Permission] = {
    "CreateDataset": permits("developer", "parent"),
    "GetDataset": permits("viewer", "name"),
    "ListDatasets": permits("viewer", "parent"),
    "CreateDatasetVersion": permits("developer", "parent"),
    "GetDatasetVersion": permits("viewer", "name", worker=True),
    "ListDatasetVersions": permits("viewer", "parent"),
    "AddSamples": permits("developer", "parent"),
    "ListSamples": permits("viewer", "parent"),
    "SealDatasetVersion": permits("developer", "name"),
    "ListAuditEvents": permits("releaser", "parent"),
}
