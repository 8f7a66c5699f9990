"""The service's settings, from BOARDWRIGHT_ variables."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from boardwright.rpc.server import ServerSettings

SCHEMA = "calibration"
MIGRATIONS = "boardwright.calibration:storage/migrations"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the service keeps things, and where the registry is.

    `scratch` holds packs while they are inspected (BOARDWRIGHT_CALIBRATION_SCRATCH; at most 256 MiB per
    seal).
    """

    server: ServerSettings
    database_url: str
    registry_endpoint: str
    service_token: str
    scratch: Path

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment. Raises: ValueError that names the variable and what to do."""
        scratch = os.environ.get("BOARDWRIGHT_CALIBRATION_SCRATCH", "")
        return cls(
            ServerSettings.from_environment("calibration"),
            database_url(),
            _needed("BOARDWRIGHT_REGISTRY_ENDPOINT", "host:port of the registry"),
            os.environ.get("BOARDWRIGHT_SERVICE_TOKEN", ""),
            Path(scratch or tempfile.gettempdir()),
        )


def database_url() -> str:
    """BOARDWRIGHT_DATABASE_URL. Raises: ValueError when it is not set."""
    return _needed("BOARDWRIGHT_DATABASE_URL", "sqlite:///absolute/path.db or postgresql://user@host/name")


def _needed(name: str, example: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"{name} is not set; give it {example}")
    return value
