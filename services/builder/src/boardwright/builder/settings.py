"""The builder's settings, from the environment.

- BOARDWRIGHT_DATABASE_URL: "sqlite:///absolute/path.db" or "postgresql://…"
- BOARDWRIGHT_REGISTRY_ENDPOINT, BOARDWRIGHT_CALIBRATION_ENDPOINT: "host:port"
- BOARDWRIGHT_SERVICE_TOKEN: its own token, for calls to them
- BOARDWRIGHT_BUILDER_LISTEN, _TOKENS_FILE, _GRANT_KEY, _READY_FILE: see ``boardwright.rpc.server``
- BOARDWRIGHT_BUILDER_BOARD: the catalogue's name of this machine, where it cannot be detected
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from boardwright.rpc.server import ServerSettings

MIGRATIONS = "boardwright.builder:storage/migrations"
SCHEMA = "builder"


class SettingMissing(ValueError):
    """A variable without which the builder cannot start; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the builder needs to know."""

    database_url: str
    registry_endpoint: str
    calibration_endpoint: str
    token: str
    board: str
    server: ServerSettings


def database_url(environment: Mapping[str, str]) -> str:
    """Return the database's URL.

    Raises:
        SettingMissing: it is not set.
    """
    return _needed(environment, "BOARDWRIGHT_DATABASE_URL")


def read_settings() -> Settings:
    """Read the settings of this process.

    Raises:
        SettingMissing, ValueError: a variable is not set.
    """
    return Settings(
        database_url=database_url(os.environ),
        registry_endpoint=_needed(os.environ, "BOARDWRIGHT_REGISTRY_ENDPOINT"),
        calibration_endpoint=_needed(os.environ, "BOARDWRIGHT_CALIBRATION_ENDPOINT"),
        token=os.environ.get("BOARDWRIGHT_SERVICE_TOKEN", ""),
        board=os.environ.get("BOARDWRIGHT_BUILDER_BOARD", ""),
        server=ServerSettings.from_environment("builder"),
    )


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise SettingMissing(f"{name} is not set; see boardwright/builder/settings.py for what it holds")
    return value
