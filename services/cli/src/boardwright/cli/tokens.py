"""The file of hashed tokens that every service reads (`boardwright.rpc.auth`): who may call, and as what."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boardwright.cli.embedded.folder import give_like, read_json, write_json
from boardwright.rpc.auth import hash_token, parse_principal
from boardwright.rpc.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from boardwright.rpc.names import check_id

Entry = dict[str, Any]

_PRINCIPAL = re.compile(r"[\w.@+-]{1,128}", re.ASCII)


def new_token() -> str:
    """A token that nobody guesses: 256 random bits."""
    return "bw_" + secrets.token_urlsafe(32)


def entry(identifier: str, principal: str, token: str, role: str, project: str = "*") -> Entry:
    """What the file holds of a token. A service and a worker are what their role says, others are users.

    Raises: InvalidArgument FIELD_INVALID for a principal or a project of another form.
    """
    if not _PRINCIPAL.fullmatch(principal):
        raise InvalidArgument(
            "FIELD_INVALID",
            f"{principal!r} names nobody: take up to 128 letters, digits and . _ @ + -",
            field="principal",
        )
    if project != "*":
        check_id(project, "project")
    return {
        "id": identifier,
        "principal": principal,
        "kind": role if role in ("service", "worker") else "user",
        "sha256": hash_token(token),
        "roles": [{"role": role, "project": project}],
    }


def read(path: Path) -> list[Entry]:
    """The entries; none where there is no file.

    Raises: FailedPrecondition TOKENS_UNREADABLE.
    """
    try:
        entries = read_json(path) or []
        for each in entries:
            parse_principal(each)
    except OSError as error:
        raise FailedPrecondition(
            "TOKENS_UNREADABLE", f"{path} cannot be read ({error.strerror}): call this as its owner"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FailedPrecondition(
            "TOKENS_UNREADABLE",
            f"{path} holds no tokens ({error}); restore it from a backup, or move it away to begin anew",
        ) from error
    return list(entries)


def change(path: Path, make: Callable[[list[Entry]], list[Entry]]) -> None:
    """Replace the entries by `make(entries)`, while nobody else changes them; services soon see it.

    The file stays whose it is: an administrator changes it, and services read it as another user.

    Raises: FailedPrecondition TOKENS_UNREADABLE, TOKENS_NOT_WRITABLE; what `make` raises.
    """
    try:
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            give_like(lock, path)
            fcntl.flock(lock, fcntl.LOCK_EX)
            present = read(path)
            wanted = make(list(present))
            if wanted != present:
                write_json(path, wanted)
        finally:
            os.close(lock)
    except OSError as error:
        raise FailedPrecondition(
            "TOKENS_NOT_WRITABLE",
            f"{path} cannot be changed ({error.strerror}): call this as its owner, or name one with --file",
        ) from error


def add(path: Path, new: Entry) -> None:
    """Admit a token. Raises: AlreadyExists TOKEN_EXISTS; as `change`."""

    def appended(entries: list[Entry]) -> list[Entry]:
        if any(each["id"] == new["id"] for each in entries):
            raise AlreadyExists(
                "TOKEN_EXISTS",
                f"there is a token {new['id']}; revoke it first, or give this one another id with --id",
            )
        return [*entries, new]

    change(path, appended)


def revoke(path: Path, identifier: str) -> None:
    """Admit a token no longer. Raises: NotFound TOKEN_NOT_FOUND; as `change`."""

    def without(entries: list[Entry]) -> list[Entry]:
        left = [each for each in entries if each["id"] != identifier]
        if len(left) == len(entries):
            raise NotFound(
                "TOKEN_NOT_FOUND", f"there is no token {identifier} in {path}; see boardwright token ls"
            )
        return left

    change(path, without)
