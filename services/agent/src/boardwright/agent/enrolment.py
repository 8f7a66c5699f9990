"""Enrolment: a one-time token becomes a device with a key of its own and a root to trust."""

from __future__ import annotations

import platform
import re
from base64 import b64decode
from importlib.metadata import version
from urllib.parse import urlsplit

from boardwright.agent.errors import Refused, Unavailable
from boardwright.agent.home import Home, Identity
from boardwright.agent.http import LOOPBACK, Http
from boardwright.agent.report import host_document
from boardwright.agent.server import DeliveryServer
from boardwright.content.digest import Digest
from boardwright.content.durable import write_file
from boardwright.device.errors import InvalidDocument
from boardwright.device.tokens import EnrolmentToken
from boardwright.model.host import detect_host


def enroll(
    home: Home,
    server: str,
    token_text: str,
    *,
    device_id: str = "",
    board: str = "",
    again: bool = False,
    allow_http: bool = False,
) -> Identity:
    """Make this folder a device of the fleet that the token belongs to.

    The key is on the disk before the server hears of it, and the identity is written last: a run that was cut
    off anywhere is simply repeated with the same token.

    Raises:
        Refused: ALREADY_ENROLLED, TOKEN_MALFORMED, SERVER_INVALID, SERVER_INSECURE, ROOT_MISMATCH.
        TurnedAway: what the server says.
        Unavailable: the server cannot be reached.
    """
    home.prepare()
    if home.is_enrolled and not again:
        raise Refused(
            "ALREADY_ENROLLED",
            f"{home.folder} already belongs to {home.identity().device}: use --again to enrol it anew, "
            f"or give another --home",
        )
    try:
        token = EnrolmentToken.parse(token_text)
    except InvalidDocument as error:
        raise Refused("TOKEN_MALFORMED", str(error)) from error
    base = _base_url(server, allow_http)
    if again:
        _forget(home)
    http = Http(base)
    host = host_document(detect_host(board))
    device = device_id or default_id()
    answer = DeliveryServer(http, home.device_key()).enroll(
        token_text.strip(), device, host, version("boardwright-agent")
    )
    http.close()
    identity, root = _read_answer(answer, base, board)
    if Digest.of(root) != token.root:
        raise Refused(
            "ROOT_MISMATCH",
            f"{base} gave a root of trust that is not the one the token names: somebody else may answer "
            f"in the server's name, or the token belongs to another installation. Nothing was kept",
        )
    write_file(home.root_path, root)
    home.save_identity(identity)
    return identity


def default_id() -> str:
    """A device id made from this machine's name."""
    name = re.sub(r"[^a-z0-9-]+", "-", platform.node().lower()).strip("-")
    return (name if name[:1].isalpha() else f"device-{name}".rstrip("-"))[:63]


def _base_url(server: str, allow_http: bool) -> str:
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("SERVER_INVALID", f"{server!r} is no address: write https://host[:port]")
    if parts.scheme == "http" and not allow_http and parts.hostname not in LOOPBACK:
        raise Refused(
            "SERVER_INSECURE",
            f"{server} is not encrypted, so the token could be read on its way: use https, "
            f"or --allow-http on a network that you trust",
        )
    return server.rstrip("/")


def _forget(home: Home) -> None:
    """Drop the old identity, key and cached metadata; the installed slots stay and go on working."""
    for path in (home.folder / "identity.json", home.key_path, home.root_path, home.folder / "state.json"):
        path.unlink(missing_ok=True)
    for path in sorted(home.trust.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _read_answer(answer: dict[str, object], base: str, board: str) -> tuple[Identity, bytes]:
    try:
        device, path = str(answer["device"]), str(answer["tuf_path"])
        root = b64decode(str(answer["tuf_root"]), validate=True)
    except (KeyError, ValueError) as error:
        raise Unavailable(
            "SERVER_ERROR", f"{base} did not answer as a gateway does ({error!r}): is the address right?"
        ) from error
    fleet = device.rpartition("/devices/")[0]
    return Identity(base, device, fleet, path.strip("/"), board), root
