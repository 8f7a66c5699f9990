"""Signed requests of the directory store: what S3's presigned URLs are to S3.

A request is signed with HMAC-SHA256 (RFC 2104) over its method, its path below the endpoint and its query.
Who holds a request to send part 3 of one upload can do just that, until it expires.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from boardwright.content.errors import ContentError, InvalidContent

EXPIRES = "expires"
SIGNATURE = "signature"
SMALLEST_KEY_BYTES = 16


class RequestRefused(ContentError):
    """A signed request is forged or expired: ask the registry for a new one."""


def sign_request(
    key: bytes,
    method: str,
    path: str,
    expires_seconds: int,
    query: Mapping[str, str],
) -> str:
    """`path` with its query, its expiry and its signature.

    Raises:
        InvalidContent: the key is missing or shorter than 16 bytes, or the time is not positive.
    """
    if len(key) < SMALLEST_KEY_BYTES:
        raise InvalidContent(
            f"a directory store signs requests with a key of at least {SMALLEST_KEY_BYTES} bytes: "
            "set BOARDWRIGHT_SIGNING_KEY"
        )
    if expires_seconds <= 0:
        raise InvalidContent(f"a request must live for at least a second, not {expires_seconds}")
    expires = int(time.time() + expires_seconds)
    fields = {**query, EXPIRES: str(expires)}
    return f"{path}?{urlencode({**fields, SIGNATURE: _signature(key, method, path, fields)})}"


def check_request(
    key: bytes, method: str, path: str, query: Mapping[str, str], *, clock: Callable[[], float] = time.time
) -> dict[str, str]:
    """The query of a request that was signed for this method and path, without its signature.

    A HEAD is allowed to who may GET.

    Raises:
        RequestRefused: the signature is not ours, or its time is over.
    """
    fields = {name: value for name, value in query.items() if name != SIGNATURE}
    wanted = _signature(key, "GET" if method == "HEAD" else method, path, fields)
    if len(key) < SMALLEST_KEY_BYTES or not hmac.compare_digest(
        wanted.encode(), query.get(SIGNATURE, "").encode("utf-8", "replace")
    ):
        raise RequestRefused("the request's signature does not hold: ask the registry for a new request")
    # Only what we signed gets here, so the number is well-formed.
    if clock() >= int(fields[EXPIRES]):
        raise RequestRefused("the request has expired: ask the registry for a new one")
    return fields


def _signature(key: bytes, method: str, path: str, fields: Mapping[str, str]) -> str:
    text = "\n".join([method, path, urlencode(sorted(fields.items()))])
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()
