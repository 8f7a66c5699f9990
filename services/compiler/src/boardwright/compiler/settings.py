"""The compiler's settings, from BOARDWRIGHT_ variables.

- BOARDWRIGHT_DATABASE_URL: "sqlite:///absolute/path.db" or "postgresql://…"
- BOARDWRIGHT_REGISTRY_ENDPOINT, _CALIBRATION_ENDPOINT, _BUILDER_ENDPOINT: "host:port"
- BOARDWRIGHT_SERVICE_TOKEN: its own token, for calls to them
- BOARDWRIGHT_GRANT_KEY: the random value that all services share
- BOARDWRIGHT_TOKENS_FILE, _COMPILER_LISTEN, _READY_FILE: see ``boardwright.rpc.server``
- BOARDWRIGHT_JOBS_KEPT_DAYS: how long ended jobs and their logs are kept (default 180; 0: for ever)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from boardwright.jobs.storage.retention import kept_days
from boardwright.rpc.environment import database_url, needed
from boardwright.rpc.server import ServerSettings

SERVICE = "compiler"


@dataclass(frozen=True, slots=True)
class CompilerSettings:
    """Where the compiler listens, keeps its jobs, and finds the services it asks."""

    server: ServerSettings
    database_url: str
    service_token: str
    grant_key: str
    registry: str
    calibration: str
    builder: str
    jobs_kept_days: int

    @classmethod
    def from_environment(cls) -> CompilerSettings:
        """Read the BOARDWRIGHT_ variables.

        Raises:
            ValueError: one that is needed is missing; the message names it.
        """
        return cls(
            server=ServerSettings.from_environment(SERVICE),
            database_url=database_url(),
            service_token=needed("BOARDWRIGHT_SERVICE_TOKEN", "the compiler's own token"),
            grant_key=needed("BOARDWRIGHT_GRANT_KEY", "the random value that all services share"),
            registry=needed("BOARDWRIGHT_REGISTRY_ENDPOINT", "the registry's host:port"),
            calibration=os.environ.get("BOARDWRIGHT_CALIBRATION_ENDPOINT", ""),
            builder=os.environ.get("BOARDWRIGHT_BUILDER_ENDPOINT", ""),
            jobs_kept_days=kept_days(),
        )
