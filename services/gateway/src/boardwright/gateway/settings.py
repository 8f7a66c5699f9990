"""The gateway's settings, from BOARDWRIGHT_ variables.

- BOARDWRIGHT_GATEWAY_LISTEN, _GATEWAY_GRPC_LISTEN: "host:port" of REST and of gRPC; port 0 picks a free one
- BOARDWRIGHT_REGISTRY_ENDPOINT, _CALIBRATION_ENDPOINT and so on: "host:port" of each service behind it
- BOARDWRIGHT_SERVICE_TOKEN: its own token, for the calls that devices make through it
- BOARDWRIGHT_BLOBS_URL, _SIGNING_KEY: a folder that is served, and what its URLs are signed with
- BOARDWRIGHT_READY_FILE: where the bound addresses are written once everything serves
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from boardwright.gateway.services import SERVICES


class SettingsError(ValueError):
    """A setting is missing or malformed; the message names the variable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the gateway listens and what is behind it.

    Attributes:
        http_listen, grpc_listen: `host:port`; port 0 picks a free one.
        endpoints: `host:port` of each service.
        service_token: the gateway's own token, for the calls that devices make through it.
        blobs_url: the object store; only a directory (`file://…`) is served from here.
        signing_key: what the directory store's requests are signed with.
        ready_file: where the bound addresses are written once everything serves.
    """

    http_listen: str
    grpc_listen: str
    endpoints: Mapping[str, str]
    service_token: str = ""
    blobs_url: str = ""
    signing_key: bytes = b""
    ready_file: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the BOARDWRIGHT_… variables.

        Raises:
            SettingsError: a service's endpoint is not set.
        """
        endpoints = {}
        for service in SERVICES:
            variable = f"BOARDWRIGHT_{service.upper()}_ENDPOINT"
            if not environment.get(variable):
                raise SettingsError(f"set {variable} to host:port of the {service} service")
            endpoints[service] = environment[variable]
        ready = environment.get("BOARDWRIGHT_READY_FILE", "")
        return cls(
            http_listen=environment.get("BOARDWRIGHT_GATEWAY_LISTEN", "127.0.0.1:0"),
            grpc_listen=environment.get("BOARDWRIGHT_GATEWAY_GRPC_LISTEN", "127.0.0.1:0"),
            endpoints=endpoints,
            service_token=environment.get("BOARDWRIGHT_SERVICE_TOKEN", ""),
            blobs_url=environment.get("BOARDWRIGHT_BLOBS_URL", ""),
            signing_key=environment.get("BOARDWRIGHT_SIGNING_KEY", "").encode(),
            ready_file=Path(ready) if ready else None,
        )
