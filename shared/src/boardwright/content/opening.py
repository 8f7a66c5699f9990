"""From a URL to a store: the one place that knows both implementations."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from boardwright.content.errors import InvalidContent
from boardwright.content.store import BlobStore

ACCESS_KEY_VARIABLE = "BOARDWRIGHT_S3_ACCESS_KEY"
SECRET_KEY_VARIABLE = "BOARDWRIGHT_S3_SECRET_KEY"  # noqa: S105 (a variable's name)


def open_store(url: str, *, signing_key: bytes = b"", public_url: str = "") -> BlobStore:
    """Open the store that a URL names; nothing is contacted yet, a folder is created.

    Args:
        url: `file:///absolute/folder`, or `s3://bucket?endpoint=http://host:port&region=us-east-1` with
            credentials from BOARDWRIGHT_S3_ACCESS_KEY and BOARDWRIGHT_S3_SECRET_KEY. Clients that reach S3 by
            another address get it through `&public_endpoint=`.
        signing_key: of a directory's part and download requests; may be empty where none are made.
        public_url: where clients reach the gateway that serves a directory's requests.

    Raises:
        InvalidContent: the URL or the credentials are malformed or missing.
        StoreUnavailable: the folder cannot be created.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        from boardwright.content.directory import DirectoryStore

        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidContent(f"{url!r} must name an absolute folder: file:///folder")
        return DirectoryStore(Path(unquote(parts.path)), signing_key=signing_key, public_url=public_url)
    if parts.scheme == "s3":
        return _open_s3(url)
    raise InvalidContent(f"{url!r} names no blob store: use file:///folder or s3://bucket?endpoint=…")


def _open_s3(url: str) -> BlobStore:
    from boardwright.content.s3 import S3Store

    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = options.keys() - {"endpoint", "region", "public_endpoint"}
    if unknown or not parts.netloc or "endpoint" not in options:
        raise InvalidContent(
            f"{url!r}: write s3://bucket?endpoint=http://host:port[&region=…][&public_endpoint=…]"
        )
    access_key = os.environ.get(ACCESS_KEY_VARIABLE, "")
    secret_key = os.environ.get(SECRET_KEY_VARIABLE, "")
    if not access_key or not secret_key:
        raise InvalidContent(f"set {ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE} to reach {url!r}")
    return S3Store(
        parts.netloc,
        endpoint=options["endpoint"],
        public_endpoint=options.get("public_endpoint", options["endpoint"]),
        region=options.get("region", "us-east-1"),
        access_key=access_key,
        secret_key=secret_key,
    )
