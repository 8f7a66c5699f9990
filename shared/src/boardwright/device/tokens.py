"""Enrolment tokens.

A token is what a person carries from the fleet to a device, once:

    bwe1.<token id>.<secret>.<digest of the root metadata>

The digest makes trust independent of the server: the device takes only the root whose SHA-256 the token
names, so that whoever answers the enrolment request cannot put a root of their own there.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Self

from boardwright.content.digest import Digest
from boardwright.device.errors import InvalidDocument

_FORM = re.compile(r"bwe1\.([a-z][a-z0-9-]{0,62})\.([A-Za-z0-9_-]{22,128})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """A token's parts.

    Attributes:
        token_id: the token's public id.
        secret: what proves that its bearer was given it; at least 128 bits, base64url.
        root: the digest of the root metadata that the device is to trust.
    """

    token_id: str
    secret: str
    root: Digest

    def __str__(self) -> str:
        root = urlsafe_b64encode(bytes.fromhex(self.root.hex)).decode().rstrip("=")
        return f"bwe1.{self.token_id}.{self.secret}.{root}"

    def __repr__(self) -> str:
        return f"EnrolmentToken({self.token_id!r})"  # never the secret

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token.

        Raises:
            InvalidDocument: the text is no token, or not all of it.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise InvalidDocument(
                "this is not a whole enrolment token: it has four parts with dots between, "
                "and begins with bwe1 (boardwright fleet token makes one)"
            )
        root = urlsafe_b64decode(match[3] + "=")
        return cls(match[1], match[2], Digest(root.hex()))
