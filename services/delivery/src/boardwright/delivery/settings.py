"""The delivery service's settings, from BOARDWRIGHT_ variables.

- BOARDWRIGHT_DATABASE_URL: "sqlite:///absolute/path.db" or "postgresql://…"
- BOARDWRIGHT_STATE_DIR: a folder for signing keys and signed metadata
- BOARDWRIGHT_DELIVERY_KEYS_DIR, _DELIVERY_REPOSITORIES_DIR: other folders for the one or the other
- BOARDWRIGHT_REGISTRY_ENDPOINT: "host:port"
- BOARDWRIGHT_SERVICE_TOKEN: its own token, for calls to it
- BOARDWRIGHT_GATEWAY_URL: where devices reach the gateway
- BOARDWRIGHT_TOKENS_FILE, _GRANT_KEY, _DELIVERY_LISTEN, _READY_FILE: see `boardwright.rpc.server`
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from boardwright.rpc.environment import database_url, needed
from boardwright.rpc.server import ServerSettings

SCHEMA = "delivery"
MIGRATIONS = "boardwright.delivery:storage/migrations"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where delivery keeps things and whom it asks.

    Attributes:
        keys: the folder of the signing keys; nobody else needs to read it, and it belongs into a backup.
        repositories: the folder of the signed repositories.
        registry_endpoint: `host:port` of the registry.
        service_token: delivery's own token, for its calls to the registry.
        gateway_url: where devices reach the gateway.
    """

    server: ServerSettings
    database_url: str
    keys: Path
    repositories: Path
    registry_endpoint: str
    service_token: str
    gateway_url: str

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment. Raises: ValueError that names the variable and what to do."""
        state = Path(needed("BOARDWRIGHT_STATE_DIR", "a folder for signing keys and signed metadata"))
        return cls(
            server=ServerSettings.from_environment("delivery"),
            database_url=database_url(),
            keys=Path(os.environ.get("BOARDWRIGHT_DELIVERY_KEYS_DIR") or state / "keys"),
            repositories=Path(
                os.environ.get("BOARDWRIGHT_DELIVERY_REPOSITORIES_DIR") or state / "repositories"
            ),
            registry_endpoint=needed("BOARDWRIGHT_REGISTRY_ENDPOINT", "host:port of the registry"),
            service_token=needed("BOARDWRIGHT_SERVICE_TOKEN", "delivery's own token"),
            gateway_url=os.environ.get("BOARDWRIGHT_GATEWAY_URL", ""),
        )
