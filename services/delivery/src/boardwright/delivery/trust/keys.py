"""Where signing keys live.

Only the delivery service holds signing keys. The embedded and the small production installation keep
them as files; a key server or hardware token implements the same port through one of
``securesystemslib.signer``'s implementations.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Protocol

from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from boardwright.content.durable import make_folder, write_file
from boardwright.delivery.trust.errors import KeyFileUnsafe

_NAME = re.compile(r"^[a-z0-9][a-z0-9.-]{0,200}$")


class KeyStore(Protocol):
    """Holds the private halves of the keys that sign fleet metadata."""

    def create(self, repository: str, role: str) -> SSlibKey:
        """Make a new Ed25519 key for a role of a repository and return its public half."""
        ...

    def signer(self, repository: str, key: Key) -> Signer | None:
        """The signer of a public key, or None when its private half is not here (kept offline)."""
        ...


class FileKeyStore:
    """Private keys as PKCS#8 PEM files ``<folder>/<repository>/<role>.<key id>.pem``, mode 0600.

    Root keys may be carried to another medium once the repository exists: without them everything
    works until the root metadata is to be renewed, and `FleetRepository` says when that is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, repository: str, role: str) -> SSlibKey:
        """Make a new key; it is on the disk, durably, before it is returned.

        Raises:
            ValueError: the names are not plain identifiers.
            OSError: the key could not be stored.
        """
        if not _NAME.match(repository) or not _NAME.match(role):
            raise ValueError(f"not a plain name: {repository!r} {role!r}")
        signer = CryptoSigner.generate_ed25519()
        public = signer.public_key
        if not isinstance(public, SSlibKey):
            raise TypeError("generate_ed25519 gave no SSlibKey")
        folder = self._folder / repository
        make_folder(folder, mode=0o700)
        write_file(folder / f"{role}.{public.keyid}.pem", signer.private_bytes, mode=0o600)
        return public

    def signer(self, repository: str, key: Key) -> Signer | None:
        """The signer of ``key``, read from its file.

        Raises:
            KeyFileUnsafe: others than its owner may read the file.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if not isinstance(key, SSlibKey) or not _NAME.match(repository) or not _NAME.match(key.keyid):
            return None
        for path in (self._folder / repository).glob(f"*.{key.keyid}.pem"):
            mode = stat.S_IMODE(os.stat(path).st_mode)
            if mode & 0o077:
                raise KeyFileUnsafe(str(path), mode)
            private = load_pem_private_key(path.read_bytes(), None)
            if isinstance(private, Ed25519PrivateKey):
                return CryptoSigner(private, key)
        return None
