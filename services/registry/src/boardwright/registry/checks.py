"""What requests must satisfy whatever the state: checked before a transaction begins."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping

from boardwright.content.canonical import canonical_json, read_json
from boardwright.database import Transaction
from boardwright.registry.domain.resources import File
from boardwright.registry.errors import blobs_not_found, field_invalid
from boardwright.registry.ports import BlobReferences

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_TEXT = 4096
_MAX_JSON_BYTES = 1 << 20
_MAX_ENTRIES = 64
_MAX_FILES = 1000


def digest(field: str, value: str, *, optional: bool = False) -> None:
    """Raises: InvalidArgument FIELD_INVALID unless `value` is "sha256:<64 hex digits>"."""
    if not (optional and not value) and not _DIGEST.fullmatch(value):
        raise field_invalid(field, f"{value[:80]!r} is not a digest (sha256: and 64 hex digits)")


def text(field: str, value: str, limit: int = _MAX_TEXT) -> None:
    """Raises: InvalidArgument FIELD_INVALID for a text over `limit` characters, or with NUL."""
    if len(value) > limit:
        raise field_invalid(field, f"longer than {limit} characters")
    if "\x00" in value:
        raise field_invalid(field, "holds a NUL character")


def one_of(field: str, value: str, allowed: Collection[str]) -> None:
    """Raises: InvalidArgument FIELD_INVALID unless `value` is among `allowed`."""
    if value not in allowed:
        raise field_invalid(field, f"{value[:80]!r} is none of {', '.join(allowed)}")


def files(field: str, values: Collection[File]) -> None:
    """Raises: InvalidArgument FIELD_INVALID for no files, a path that leads outside or comes twice."""
    if not values or len(values) > _MAX_FILES:
        raise field_invalid(field, f"needs 1 to {_MAX_FILES} files")
    seen = set()
    for file in values:
        parts = file.path.split("/")
        if not file.path or len(file.path) > 512 or "\\" in file.path or "\x00" in file.path:
            raise field_invalid(field, f"{file.path[:80]!r} is not a relative path with forward slashes")
        if any(part in ("", ".", "..") for part in parts):
            raise field_invalid(field, f"the path {file.path[:80]!r} must be relative, without '.' and '..'")
        if file.path in seen:
            raise field_invalid(field, f"the path {file.path!r} comes twice")
        seen.add(file.path)
        digest(field, file.digest)


def json_object(field: str, value: str, *, optional: bool = True) -> str:
    """The value as canonical JSON. Raises: InvalidArgument FIELD_INVALID unless it is a JSON object."""
    if not value and optional:
        return ""
    if len(value) > _MAX_JSON_BYTES:
        raise field_invalid(field, "larger than 1 MiB")
    try:
        document = read_json(value)
        if not isinstance(document, dict):
            raise field_invalid(field, "must be a JSON object")
        return canonical_json(document).decode()
    except ValueError as error:
        raise field_invalid(field, f"is not JSON ({error})") from error


def labels(field: str, values: Mapping[str, str]) -> None:
    """Raises: InvalidArgument FIELD_INVALID for too many or too long labels."""
    if len(values) > _MAX_ENTRIES:
        raise field_invalid(field, f"at most {_MAX_ENTRIES} entries")
    for key, value in values.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,62}", key):
            raise field_invalid(field, f"{key[:80]!r} is not a label key (letters, digits, _ . / -)")
        text(f"{field}.{key}", value, 1024)


def figures(field: str, values: Mapping[str, float], *, needed: bool) -> None:
    """Raises: InvalidArgument FIELD_INVALID for too many or non-finite figures, or none when `needed`."""
    if (needed and not values) or len(values) > 4 * _MAX_ENTRIES:
        raise field_invalid(field, f"needs {'1' if needed else '0'} to {4 * _MAX_ENTRIES} figures")
    for key, value in values.items():
        text(field, key, 128)
        if not math.isfinite(value):
            raise field_invalid(f"{field}.{key}", "is not a finite number")


def blobs(
    tx: Transaction,
    references: BlobReferences,
    project: str,
    wanted: Iterable[File],
    others: Iterable[str] = (),
) -> None:
    """Check that files and other digests are visible and as large as claimed.

    Raises: NotFound BLOB_NOT_FOUND; InvalidArgument FIELD_INVALID for a size that is not the blob's.
    """
    by_digest = {f.digest: f for f in wanted}
    digests = [*by_digest, *(d for d in others if d)]
    sizes = references.sizes(tx, project, digests)
    missing = [d for d in digests if d not in sizes]
    if missing:
        raise blobs_not_found(missing)
    for value, file in by_digest.items():
        if file.size_bytes != sizes[value]:
            raise field_invalid(
                "size_bytes",
                f"{file.path} is claimed to have {file.size_bytes} bytes, its blob has {sizes[value]}",
            )
