"""The compiler's settings, from the environment alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

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

    @classmethod
    def from_environment(cls) -> CompilerSettings:
        """Read the BOARDWRIGHT_ variables.

        Raises:
            ValueError: one that is needed is missing; the message names it.
        """
        return cls(
            server=ServerSettings.from_environment(SERVICE),
            database_url=_needed("BOARDWRIGHT_DATABASE_URL", "sqlite:///… or postgresql://…"),
            service_token=_needed("BOARDWRIGHT_SERVICE_TOKEN", "the compiler's own token"),
            grant_key=_needed("BOARDWRIGHT_GRANT_KEY", "the random value that all services share"),
            registry=_needed("BOARDWRIGHT_REGISTRY_ENDPOINT", "the registry's host:port"),
            calibration=os.environ.get("BOARDWRIGHT_CALIBRATION_ENDPOINT", ""),
            builder=os.environ.get("BOARDWRIGHT_BUILDER_ENDPOINT", ""),
        )


def _needed(name: str, what: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"{name} is not set; it names {what}")
    return value
