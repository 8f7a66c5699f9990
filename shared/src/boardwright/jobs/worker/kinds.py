"""Which step kinds are installed on this machine, told without importing any of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from boardwright.jobs.step_api import ENTRY_POINT_GROUP


def installed_kinds(python_path: Sequence[str] = ()) -> frozenset[str]:
    """Return the names of all entry points of the steps' group, on ``sys.path`` and ``python_path``."""
    named = {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
    if python_path:
        for distribution in importlib.metadata.distributions(path=list(python_path)):
            named |= {p.name for p in distribution.entry_points if p.group == ENTRY_POINT_GROUP}
    return frozenset(named)
