"""What the repositories may raise. Every message says what to do next."""

from __future__ import annotations


class TrustError(Exception):
    """Root of everything this package raises on purpose."""


class KeyFileUnsafe(TrustError):
    """Others than its owner may read a private key."""

    def __init__(self, path: str, mode: int) -> None:
        super().__init__(
            f"the signing key {path} has mode {mode:04o}, so others may read it: "
            f"treat it as stolen if they did, else run chmod 600 on it"
        )


class KeysMissing(TrustError):
    """Too few private keys of a role are here to sign its metadata."""

    def __init__(self, repository: str, role: str, have: int, need: int) -> None:
        super().__init__(
            f"{need} of the {role} keys of {repository} must sign and {have} are here: "
            f"put the key files back into the key folder, or restore them from their backup"
        )
        self.role = role


class RepositoryDamaged(TrustError):
    """Metadata on the disk is unreadable, or older than what it refers to."""
