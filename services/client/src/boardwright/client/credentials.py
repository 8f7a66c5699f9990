"""Where the server is and which token to show.

In this order: what the caller says; BOARDWRIGHT_ENDPOINT and BOARDWRIGHT_TOKEN; a stack that runs on this
machine (the data folder in BOARDWRIGHT_DATA, a `.boardwright` folder here or above, or the platform's user
data folder); what `boardwright login` stored.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boardwright.rpc.errors import Unavailable

DATA_FOLDER = ".boardwright"


class CredentialsMissing(Unavailable):
    """No server is configured, and none runs here. Reason: NO_SERVER."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach a server.

    Attributes:
        endpoint: `host:port` of the gRPC authority, or `https://host:port` for TLS.
        token: shown with every call; empty for none.
        url: of REST, files and devices; empty where only gRPC is known.
        source: where this was found, in words.
    """

    endpoint: str
    token: str
    url: str
    source: str


def find_credentials(
    endpoint: str | None = None,
    token: str | None = None,
    *,
    data: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Credentials:
    """Find the server to talk to.

    Args:
        endpoint, token: what the caller knows; an endpoint alone takes its token from the environment or
            from a login to the same endpoint, and a token alone is shown instead of a local stack's or a
            login's.
        data: the data folder of a stack on this machine; no other is looked for then.
        environment: instead of this process's.

    Raises:
        CredentialsMissing: nothing was found.
    """
    environment = os.environ if environment is None else environment
    token = token or environment.get("BOARDWRIGHT_TOKEN", "")
    endpoint = endpoint or (environment.get("BOARDWRIGHT_ENDPOINT", "") if data is None else "")
    if endpoint:
        stored = read_login(environment)
        if not token and stored is not None and stored.endpoint == endpoint:
            token = stored.token
        return Credentials(
            endpoint, token, environment.get("BOARDWRIGHT_URL", ""), "arguments or environment"
        )
    folders = [data] if data is not None else list(_data_folders(environment))
    for folder in folders:
        found = _of_running_stack(folder)
        if found is not None:
            return replace(found, token=token) if token else found
    stored = read_login(environment) if data is None else None
    if stored is not None:
        return replace(stored, token=token) if token else stored
    where = f" on {data}" if data is not None else ""
    raise CredentialsMissing(
        "NO_SERVER",
        f"no Boardwright runs here{where} and no other is configured: start one with "
        "`boardwright up --detach`, log in to one with `boardwright login`, or set "
        "BOARDWRIGHT_ENDPOINT and BOARDWRIGHT_TOKEN",
    )


def data_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The data folder that `boardwright up` uses when none is named: the first of those looked into."""
    return next(_data_folders(os.environ if environment is None else environment))


def _data_folders(environment: Mapping[str, str]) -> Iterator[Path]:
    if environment.get("BOARDWRIGHT_DATA"):
        yield Path(environment["BOARDWRIGHT_DATA"])
        return
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / DATA_FOLDER).is_dir():
            yield folder / DATA_FOLDER
            break
    yield _user_data_folder(environment)


def _user_data_folder(environment: Mapping[str, str]) -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "boardwright"
    if environment.get("XDG_DATA_HOME"):
        return Path(environment["XDG_DATA_HOME"]) / "boardwright"
    return Path.home() / ".local" / "share" / "boardwright"


def _of_running_stack(folder: Path) -> Credentials | None:
    try:
        held = json.loads((folder / "run" / "endpoints.json").read_text())
        os.kill(int(held["pid"]), 0)  # a supervisor that was killed leaves its file behind
        return Credentials(held["grpc"], held["token"], held["url"], f"the stack on {folder}")
    except PermissionError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def login_file(environment: Mapping[str, str] | None = None) -> Path:
    """Where `boardwright login` keeps endpoint and token (0600)."""
    environment = os.environ if environment is None else environment
    if environment.get("XDG_CONFIG_HOME"):
        return Path(environment["XDG_CONFIG_HOME"]) / "boardwright" / "login.json"
    return Path.home() / ".config" / "boardwright" / "login.json"


def read_login(environment: Mapping[str, str] | None = None) -> Credentials | None:
    """What `boardwright login` stored, or None."""
    path = login_file(environment)
    try:
        held: Any = json.loads(path.read_text())
        return Credentials(str(held["endpoint"]), str(held["token"]), str(held.get("url", "")), str(path))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_login(credentials: Credentials, environment: Mapping[str, str] | None = None) -> Path:
    """Store a login for later calls; returns the file, which only the user may read.

    Raises:
        OSError: it cannot be written.
    """
    path = login_file(environment)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(
            {"endpoint": credentials.endpoint, "token": credentials.token, "url": credentials.url}, stream
        )
    partial.replace(path)
    return path
