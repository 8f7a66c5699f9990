"""Which permission each method of the Builder needs."""

from __future__ import annotations

from collections.abc import Mapping

from boardwright.rpc.auth import Permission, permits

PERMISSIONS: Mapping[str, Permission] = {
    "ListBoards": permits("viewer", worker=True),
    "GetBoard": permits("viewer", worker=True),
    "ListToolchains": permits("viewer", worker=True),
    "CreateBuildJob": permits("developer", "parent"),
    "CreateMeasureJob": permits("developer", "parent"),
    "GetBuildJob": permits("viewer", "name"),
    "ListBuildJobs": permits("viewer", "parent"),
    "CancelBuildJob": permits("developer", "name"),
    "RetryBuildJob": permits("developer", "name"),
    "WatchBuildJob": permits("viewer", "name"),
    "GetStepLog": permits("viewer", "name"),
}
