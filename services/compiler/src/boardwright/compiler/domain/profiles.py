"""Quantization profiles as the planner sees them: a name, and what to give to the quantize pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KNOWN_PROFILES = frozenset({"x86-vnni", "x86", "arm", "tensorrt", "tidl-mma1", "vx-delegate"})
"""Profiles that the engine has a scheme for; others are spelled out."""


@dataclass(frozen=True, slots=True)
class BoardProfile:
    """The profile of a board's kernels. ``scheme`` spells out one that the engine does not know by name."""

    name: str
    scheme: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameter(self) -> str | Mapping[str, Any]:
        """What the quantize pass's parameter ``profile`` is set to."""
        return self.name if self.name in KNOWN_PROFILES else dict(self.scheme)

    @property
    def id(self) -> str:
        """The name as a part of a Variant's id."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "profile"
