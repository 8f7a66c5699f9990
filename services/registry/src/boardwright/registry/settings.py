"""The registry's settings, from BOARDWRIGHT_ variables."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from boardwright.registry.domain.blobs import GRACE_SECONDS, LARGEST_BYTES, BlobPolicy
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
            _needed("BOARDWRIGHT_BLOBS_URL", "file:///folder or s3://bucket?endpoint=…"),
            os.environ.get("BOARDWRIGHT_SIGNING_KEY", ""),
            os.environ.get("BOARDWRIGHT_GATEWAY_URL", ""),
            BlobPolicy(
                largest_bytes=_number("BOARDWRIGHT_BLOB_LARGEST_BYTES", LARGEST_BYTES),
                grace_seconds=_number("BOARDWRIGHT_BLOB_GRACE_SECONDS", GRACE_SECONDS),
            ),
        )


def database_url() -> str:
    """BOARDWRIGHT_DATABASE_URL. Raises: ValueError when it is not set."""
    return _needed("BOARDWRIGHT_DATABASE_URL", "sqlite:///absolute/path.db or postgresql://user@host/name")


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    if not value:
        return otherwise
    if not value.isdecimal() or int(value) == 0:
        raise ValueError(f"{name} is {value!r}; give it a positive whole number")
    return int(value)


def _needed(name: str, example: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"{name} is not set; give it {example}")
    return value
