"""Tokens and keys of the embedded stack, made on its first start.

``credentials.json`` (0600) holds them in plain text, because the supervisor must hand them to its processes;
``tokens.json`` holds hashes alone and is what the services read. Entries that others added to ``tokens.json``
stay.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from boardwright.cli.embedded.folder import DataFolder, read_json, write_json

SERVICES = ("registry", "calibration", "compiler", "builder", "delivery")
_IDENTITIES = (*SERVICES, "gateway")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Secrets of one data folder. ``services`` maps each service (and the gateway) to its token."""

    admin: str
    worker: str
    services: Mapping[str, str]
    grant_key: str
    signing_key: str


def ensure_credentials(folder: DataFolder) -> Credentials:
    """Read the folder's credentials, or make them; then bring ``tokens.json`` in line with them."""
    stored = read_json(folder.credentials)
    if stored is None:
        credentials = Credentials(
            admin=_token(),
            worker=_token(),
            services={name: _token() for name in _IDENTITIES},
            grant_key=secrets.token_hex(32),
            signing_key=secrets.token_hex(32),
        )
        write_json(folder.credentials, asdict(credentials))
    else:
        credentials = Credentials(**stored)
    _write_tokens(folder, credentials)
    return credentials


def _token() -> str:
    return "bw_" + secrets.token_urlsafe(32)


def _write_tokens(folder: DataFolder, credentials: Credentials) -> None:
    own = [_entry("embedded-admin", "admin", "user", credentials.admin, "admin")]
    own.append(_entry("embedded-worker", "worker", "worker", credentials.worker, "worker"))
    for name, token in credentials.services.items():
        own.append(_entry(f"embedded-{name}", name, "service", token, "service"))
    present = read_json(folder.tokens) or []
    names = {entry["id"] for entry in own}
    wanted = own + [entry for entry in present if entry["id"] not in names]
    if wanted != present:
        write_json(folder.tokens, wanted)


def _entry(identifier: str, principal: str, kind: str, token: str, role: str) -> dict[str, Any]:
    return {
        "id": identifier,
        "principal": principal,
        "kind": kind,
        "sha256": hashlib.sha256(token.encode("utf-8")).hexdigest(),
        "roles": [{"role": role, "project": "*"}],
    }
