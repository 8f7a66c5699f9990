"""Digest: the SHA-256 that names a blob."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Self

from boardwright.content.errors import InvalidContent

_FORM = re.compile(r"sha256:([0-9a-f]{64})")
_PREFIX = "sha256:"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The name of a blob: `sha256:` and 64 lower-case hexadecimal digits.

    Attributes:
        hex: the 64 digits.
    """

    hex: str

    def __post_init__(self) -> None:
        if not _FORM.fullmatch(_PREFIX + self.hex):
            raise InvalidContent(f"{self.hex[:80]!r} is not a SHA-256: give 64 lower-case hexadecimal digits")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:<64 hex>`.

        Raises:
            InvalidContent: the text has another form.
        """
        if not _FORM.fullmatch(text):
            raise InvalidContent(f"{text[:80]!r} is not a digest: write sha256: and 64 lower-case hex digits")
        return cls(text[len(_PREFIX) :])

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The digest of these bytes."""
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return _PREFIX + self.hex


def digest_file(path: str | os.PathLike[str]) -> Digest:
    """The digest of a file, read in pieces of 1 MiB.

    Raises:
        OSError: the file cannot be read.
    """
    hasher = hashlib.sha256()
    buffer = bytearray(_READ_BYTES)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(view[:count])
    return Digest(hasher.hexdigest())
