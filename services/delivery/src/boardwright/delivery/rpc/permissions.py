"""Which permission each method of Delivery needs."""

from __future__ import annotations

from collections.abc import Mapping

from boardwright.rpc.auth import Permission, permits

PERMISSIONS: Mapping[str, Permission] = {
    "CreateFleet": permits("releaser", "parent"),
    "GetFleet": permits("viewer", "name"),
    "ListFleets": permits("viewer", "parent"),
    "CreateEnrolmentToken": permits("releaser", "parent"),
    # Devices have no token of their own: the gateway passes their requests on, and the one-time token or
    # the device's signature is what is checked.
    "EnrolDevice": permits("admin"),
    "ReportDevice": permits("admin"),
    "AuthorizeDownload": permits("admin"),
    "GetTufFile": permits("viewer", "fleet"),
    "GetDevice": permits("viewer", "name"),
    "ListDevices": permits("viewer", "parent"),
    "RevokeDevice": permits("releaser", "name"),
    "ListReports": permits("viewer", "parent"),
    "CreateBundles": permits("developer", "parent"),
    "ListBundles": permits("viewer", "parent"),
    "CreateRollout": permits("releaser", "parent"),
    "GetRollout": permits("viewer", "name"),
    "ListRollouts": permits("viewer", "parent"),
    "PauseRollout": permits("releaser", "name"),
    "ResumeRollout": permits("releaser", "name"),
    "CancelRollout": permits("releaser", "name"),
    "WatchRollout": permits("viewer", "name"),
    "ListAuditEvents": permits("releaser", "parent"),
}
