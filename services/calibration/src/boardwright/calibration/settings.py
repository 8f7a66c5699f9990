"""The service's settings, from BOARDWRIGHT_ variables.

- BOARDWRIGHT_DATABASE_URL: "sqlite:///absolute/path.db" or "postgresql://…"
- BOARDWRIGHT_REGISTRY_ENDPOINT: "host:port"
- BOARDWRIGHT_SERVICE_TOKEN: its own token, for calls to it
- BOARDWRIGHT_CALIBRATION_SCRATCH: a folder for packs while they are inspected (at most 256 MiB per seal)
- BOARDWRIGHT_TOKENS_FILE, _GRANT_KEY, _CALIBRATION_LISTEN, _READY_FILE: see `boardwright.rpc.server`
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from boardwright.rpc.environment import database_url, needed
from boardwright.rpc.server import ServerSettings

SCHEMA = "calibration"
MIGRATIONS = "boardwright.calibration:storage/migrations"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the service keeps things, and where the registry is."""

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
            needed("BOARDWRIGHT_REGISTRY_ENDPOINT", "host:port of the registry"),
            os.environ.get("BOARDWRIGHT_SERVICE_TOKEN", ""),
            Path(scratch or tempfile.gettempdir()),
        )
