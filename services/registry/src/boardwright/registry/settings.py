"""The registry's settings, from BOARDWRIGHT_ variables.

- BOARDWRIGHT_DATABASE_URL: "sqlite:///absolute/path.db" or "postgresql://…"
- BOARDWRIGHT_BLOBS_URL: "file:///folder" or "s3://bucket?endpoint=…"
- BOARDWRIGHT_SIGNING_KEY, BOARDWRIGHT_GATEWAY_URL: for a folder, what its URLs are signed with and lead to
- BOARDWRIGHT_BLOB_LARGEST_BYTES: what one blob may hold
- BOARDWRIGHT_BLOB_GRACE_SECONDS: how long a blob without references is kept
- BOARDWRIGHT_TOKENS_FILE, _GRANT_KEY, _REGISTRY_LISTEN, _READY_FILE: see `boardwright.rpc.server`
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from boardwright.registry.domain.blobs import GRACE_SECONDS, LARGEST_BYTES, BlobPolicy
from boardwright.rpc.environment import database_url, needed
from boardwright.rpc.server import ServerSettings

SCHEMA = "registry"
MIGRATIONS = "boardwright.registry:storage/migrations"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the registry keeps things. `signing_key` and `gateway_url` serve a directory store's URLs."""

    server: ServerSettings
    database_url: str
    blobs_url: str
    signing_key: str
    gateway_url: str
    blob_policy: BlobPolicy = field(default_factory=BlobPolicy)

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment. Raises: ValueError that names the variable and what to do."""
        return cls(
            ServerSettings.from_environment("registry"),
            database_url(),
            needed("BOARDWRIGHT_BLOBS_URL", "file:///folder or s3://bucket?endpoint=…"),
            os.environ.get("BOARDWRIGHT_SIGNING_KEY", ""),
            os.environ.get("BOARDWRIGHT_GATEWAY_URL", ""),
            BlobPolicy(
                largest_bytes=_number("BOARDWRIGHT_BLOB_LARGEST_BYTES", LARGEST_BYTES),
                grace_seconds=_number("BOARDWRIGHT_BLOB_GRACE_SECONDS", GRACE_SECONDS),
            ),
        )


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    if not value:
        return otherwise
    if not value.isdecimal() or int(value) == 0:
        raise ValueError(f"{name} is {value!r}; give it a positive whole number")
    return int(value)
