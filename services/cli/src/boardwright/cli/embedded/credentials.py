"""Tokens and keys of the embedded stack, made on its first start.

``credentials.json`` (0600) holds them in plain text, because the supervisor must hand them to its processes;
``tokens.json`` holds hashes alone and is what the services read. Entries that others added to ``tokens.json``
stay.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from boardwright.cli.embedded.folder import DataFolder, read_json, write_json
from boardwright.cli.tokens import change, entry, new_token

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
            admin=new_token(),
            worker=new_token(),
            services={name: new_token() for name in _IDENTITIES},
            grant_key=secrets.token_hex(32),
            signing_key=secrets.token_hex(32),
        )
        write_json(folder.credentials, asdict(credentials))
    else:
        credentials = Credentials(**stored)
    _write_tokens(folder, credentials)
    return credentials


def _write_tokens(folder: DataFolder, credentials: Credentials) -> None:
    own = [entry("embedded-admin", "admin", credentials.admin, "admin")]
    own.append(entry("embedded-worker", "worker", credentials.worker, "worker"))
    own += [entry(f"embedded-{name}", name, token, "service") for name, token in credentials.services.items()]
    names = {each["id"] for each in own}
    change(folder.tokens, lambda present: own + [each for each in present if each["id"] not in names])
