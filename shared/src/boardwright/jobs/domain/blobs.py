"""How a job names content: a digest with its size and media type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Blob:
    """Content by its digest (``sha256:…``), size in bytes and media type."""

    digest: str
    size_bytes: int
    media_type: str = "application/octet-stream"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that rows and records hold."""
        return {"digest": self.digest, "size_bytes": self.size_bytes, "media_type": self.media_type}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Blob:
        """Read what ``to_json`` gave."""
        return Blob(value["digest"], int(value["size_bytes"]), value["media_type"])
