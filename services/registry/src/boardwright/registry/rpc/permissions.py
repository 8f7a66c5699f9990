"""Which permission each method of the Registry needs (the Blobs API's stand in `blobs_servicer`)."""

from __future__ import annotations

from collections.abc import Mapping

from boardwright.rpc.auth import Permission, permits

PERMISSIONS: Mapping[str, Permission] = {
    "CreateModel": permits("developer", "parent"),
    "GetModel": permits("viewer", "name"),
    "ListModels": permits("viewer", "parent"),
    "UpdateModel": permits("releaser", "model.name"),
    "CreateModelVersion": permits("developer", "parent"),
    "GetModelVersion": permits("viewer", "name"),
    "ListModelVersions": permits("viewer", "parent"),
    "FixSpecs": permits("developer", "name"),
    "SetAlias": permits("developer", "alias.name"),
    "GetAlias": permits("viewer", "name"),
    "ListAliases": permits("viewer", "parent"),
    "DeleteAlias": permits("developer", "name"),
    # Results of steps. The compiler and the builder register them: gates and reports rest on them, so that no
    # developer may write down a figure that nothing measured.
    "CreateVariant": permits("admin", "parent"),
    "GetVariant": permits("viewer", "name"),
    "ListVariants": permits("viewer", "parent"),
    "CreateArtifact": permits("admin", "parent"),
    "GetArtifact": permits("viewer", "name"),
    "ListArtifacts": permits("viewer", "parent"),
    "CreateMeasurement": permits("admin", "parent"),
    "GetMeasurement": permits("viewer", "name"),
    "ListMeasurements": permits("viewer", "parent"),
    "CreateRelease": permits("developer", "parent"),
    "GetRelease": permits("viewer", "name"),
    "ListReleases": permits("viewer", "parent"),
    "GetStage": permits("viewer", "name"),
    "ListStages": permits("viewer", "parent"),
    "PromoteRelease": permits("releaser", "name"),
    "RollBackStage": permits("releaser", "name"),
    "ListPromotions": permits("viewer", "parent"),
    "GetLineage": permits("viewer", "parent"),
    # A result of a step, as above.
    "RecordStep": permits("admin", "parent"),
    "ListAuditEvents": permits("releaser", "parent"),
    "WatchEvents": permits("viewer", "parent"),
}
