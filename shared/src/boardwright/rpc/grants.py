"""Grant tokens: what a lease lets its worker touch, signed, short-lived, checked without a look-up.

Form: "bwg1.<urlsafe base64 of canonical JSON claims>.<urlsafe base64 of HMAC-SHA256>". The key is shared by
the services (BOARDWRIGHT_GRANT_KEY); whoever holds a grant can use it until it expires, so it names exactly
the digests that may be read and one prefix under which uploads belong to it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass

from boardwright.rpc.errors import Unauthenticated

PREFIX = "bwg1."


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer may do until `expires_at` (seconds since the epoch)."""

    principal: str
    project: str
    read_digests: frozenset[str]
    upload_prefix: str
    expires_at: float


def mint(key: str, grant: Grant) -> str:
    """Sign a grant. Raises: ValueError for an empty key."""
    if not key:
        raise ValueError("BOARDWRIGHT_GRANT_KEY is empty; set the same random value for every service")
    claims = {
        "principal": grant.principal,
        "project": grant.project,
        "read": sorted(grant.read_digests),
        "upload": grant.upload_prefix,
        "exp": grant.expires_at,
    }
    body = base64.urlsafe_b64encode(
        json.dumps(claims, sort_keys=True, separators=(",", ":")).encode()
    ).decode()
    return f"{PREFIX}{body}.{_signature(key, body)}"


def verify(key: str, token: str, *, now: float | None = None) -> Grant:
    """The grant that `token` carries. Raises: Unauthenticated GRANT_INVALID, GRANT_EXPIRED."""
    body, _, signature = token.removeprefix(PREFIX).rpartition(".")
    invalid = Unauthenticated("GRANT_INVALID", "the grant was not signed by this system; take a new lease")
    if not key or not token.startswith(PREFIX) or not hmac.compare_digest(signature, _signature(key, body)):
        raise invalid
    try:
        claims = json.loads(base64.urlsafe_b64decode(body))
        grant = Grant(
            claims["principal"], claims["project"], frozenset(claims["read"]), claims["upload"], claims["exp"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise invalid from error
    if grant.expires_at <= (time.time() if now is None else now):
        raise Unauthenticated("GRANT_EXPIRED", "the grant has expired; send a heartbeat or take a new lease")
    return grant


def _signature(key: str, body: str) -> str:
    return (
        base64.urlsafe_b64encode(hmac.digest(key.encode(), body.encode(), hashlib.sha256))
        .decode()
        .rstrip("=")
    )
