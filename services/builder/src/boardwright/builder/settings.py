"""The builder's settings, from BOARDWRIGHT_ variables.

- BOARDWRIGHT_DATABASE_URL: "sqlite:///absolute/path.db" or "postgresql://…"
- BOARDWRIGHT_REGISTRY_ENDPOINT, BOARDWRIGHT_CALIBRATION_ENDPOINT: "host:port"
- BOARDWRIGHT_SERVICE_TOKEN: its own token, for calls to them
- BOARDWRIGHT_GRANT_KEY: the random value that all services share
- BOARDWRIGHT_TOKENS_FILE, _BUILDER_LISTEN, _READY_FILE: see ``boardwright.rpc.server``
- BOARDWRIGHT_BUILDER_BOARD: the catalogue's name of this machine, where it cannot be detected
- BOARDWRIGHT_JOBS_KEPT_DAYS: how long ended jobs and their logs are kept (default 180; 0: for ever)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from boardwright.jobs.storage.retention import kept_days
from boardwright.rpc.environment import database_url, needed
from boardwright.rpc.server import ServerSettings

MIGRATIONS = "boardwright.builder:storage/migrations"
SCHEMA = "builder"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the builder needs to know."""

    database_url: str
    registry_endpoint: str
    calibration_endpoint: str
    token: str
    board: str
    jobs_kept_days: int
    server: ServerSettings

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment. Raises: ValueError that names the variable and what to do."""
        return cls(
            database_url=database_url(),
            registry_endpoint=needed("BOARDWRIGHT_REGISTRY_ENDPOINT", "host:port of the registry"),
            calibration_endpoint=needed("BOARDWRIGHT_CALIBRATION_ENDPOINT", "host:port of calibration"),
            token=os.environ.get("BOARDWRIGHT_SERVICE_TOKEN", ""),
            board=os.environ.get("BOARDWRIGHT_BUILDER_BOARD", ""),
            jobs_kept_days=kept_days(),
            server=ServerSettings.from_environment(SCHEMA),
        )
