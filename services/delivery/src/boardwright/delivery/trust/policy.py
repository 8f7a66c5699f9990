"""How long metadata is valid, and when it is signed again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

ROLES = ("root", "timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class RolePolicy:
    """Validity of one role's metadata.

    A new version is signed as soon as less than ``renew_before`` of the validity is left, so
    ``renew_before`` is also the longest outage of the delivery service that no device notices.
    """

    validity: timedelta
    renew_before: timedelta

    def __post_init__(self) -> None:
        if not timedelta(0) < self.renew_before < self.validity:
            raise ValueError("renew_before must be positive and shorter than validity")

    def due(self, expires: datetime, now: datetime) -> bool:
        """Whether metadata that ends at ``expires`` is to be signed again at ``now``."""
        return expires - now <= self.renew_before


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Key thresholds and validities of one fleet's repository.

    Root keys are only used to create and to renew root metadata; with the default of two out of
    three, one can be lost and one can be stolen without losing the fleet.
    """

    root_keys: int = 3
    root_threshold: int = 2
    root: RolePolicy = field(default=RolePolicy(timedelta(days=365), timedelta(days=120)))
    targets: RolePolicy = field(default=RolePolicy(timedelta(days=90), timedelta(days=45)))
    snapshot: RolePolicy = field(default=RolePolicy(timedelta(days=21), timedelta(days=14)))
    timestamp: RolePolicy = field(default=RolePolicy(timedelta(days=7), timedelta(days=6)))

    def __post_init__(self) -> None:
        if not 1 <= self.root_threshold <= self.root_keys:
            raise ValueError("root_threshold must be between 1 and root_keys")

    def of(self, role: str) -> RolePolicy:
        """The policy of a top-level role.

        Raises:
            KeyError: the role is none of ``ROLES``.
        """
        policies = {
            "root": self.root,
            "targets": self.targets,
            "snapshot": self.snapshot,
            "timestamp": self.timestamp,
        }
        return policies[role]
