"""Who calls, and what they may do.

Tokens live hashed in one JSON file, `[{"id", "principal", "kind", "sha256", "roles": [{"role", "project"}]}]`
(read again when it changes); a worker's grant (`rpc/grants.py`) is a token too. A service says in one table
which method needs which permission; the server checks it before the servicer runs (`rpc/server.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from boardwright.rpc.errors import PermissionDenied, Unauthenticated
from boardwright.rpc.grants import PREFIX, Grant, verify
from boardwright.rpc.names import project_of

Kind = Literal["user", "service", "worker", "device"]
Role = Literal["viewer", "developer", "releaser", "admin", "service", "worker"]

_RANKS = {"viewer": 1, "developer": 2, "releaser": 3, "admin": 4}
_KINDS = ("user", "service", "worker", "device")
_RECHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class RoleGrant:
    """A role in one project; "*" is every project."""

    role: Role
    project: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `on_behalf_of` is the principal that a service forwards; services alone may.

    `grant` is set when the call came with a grant instead of a token of its own: then the servicer must hold
    every digest against it.
    """

    name: str
    kind: Kind = "user"
    roles: tuple[RoleGrant, ...] = ()
    on_behalf_of: str = ""
    token_id: str = ""
    grant: Grant | None = None

    @property
    def actor(self) -> str:
        """Whose deed it is: the forwarded principal, else the caller."""
        return self.on_behalf_of or self.name

    @property
    def service(self) -> str:
        """The service that forwarded the actor's call, or ""."""
        return self.name if self.on_behalf_of else ""

    def may(self, permission: Permission, project: str) -> bool:
        """Whether one of the roles covers `permission` in `project` ("" asks for any project)."""
        needed = _RANKS[permission.role]
        for grant in self.roles:
            if project and grant.project not in ("*", project):
                continue
            if grant.role in permission.others or _RANKS.get(grant.role, 0) >= needed:
                return True
        return False


@dataclass(frozen=True, slots=True)
class Permission:
    """What a method needs.

    `role`: the least role of viewer < developer < releaser < admin. `resource`: the request's field that
    names the project ("name", "parent", "model.name"). "" when the method speaks of no project: then whoever
    may look at any project may look, and everything beyond looking concerns all projects and needs the role
    in every one ("*"). `others`: the roles outside that order which may call it too. `public`: no token.
    `waits`: it is a long poll, which takes no turn (`rpc/turns.py`).
    """

    role: Literal["viewer", "developer", "releaser", "admin"]
    resource: str = ""
    others: frozenset[str] = frozenset({"service"})
    public: bool = False
    waits: bool = False

    def project(self, request: Any) -> str:
        """The project that `request` speaks of."""
        if not self.resource:
            return ""
        value = request
        for part in self.resource.split("."):
            value = getattr(value, part)
        return project_of(value)


def permits(
    role: Literal["viewer", "developer", "releaser", "admin"],
    resource: str = "",
    *,
    worker: bool = False,
) -> Permission:
    """A table entry: least role, the request's naming field, and whether workers may call it too."""
    return Permission(role, resource, frozenset({"service", "worker"} if worker else {"service"}))


_NOBODY = Principal("anonymous")
_CURRENT: ContextVar[Principal] = ContextVar("boardwright_principal", default=_NOBODY)


def current_principal() -> Principal:
    """The caller of the RPC that runs now; "anonymous" without roles outside of one."""
    return _CURRENT.get()


def set_principal(principal: Principal) -> None:
    """Make `principal` the caller for the rest of this context (the server does; tests may)."""
    _CURRENT.set(principal)


def require(permission: Permission, project: str) -> Principal:
    """The current principal, if it has `permission` in `project`.

    Raises: PermissionDenied PERMISSION_MISSING.
    """
    principal = _CURRENT.get()
    check(principal, permission, project)
    return principal


def check(principal: Principal, permission: Permission, project: str) -> None:
    """Raises: PermissionDenied PERMISSION_MISSING unless `principal` has `permission` in `project`."""
    if not principal.may(permission, project):
        where = " in every project" if project == "*" else f" in project {project}" if project else ""
        raise PermissionDenied(
            "PERMISSION_MISSING",
            f"{principal.name} needs the role {permission.role}{where}; ask an admin of the project for it",
            permission=permission.role,
            principal=principal.name,
            project=project,
        )


def check_request(principal: Principal, permission: Permission, request: Any) -> None:
    """Check the permission in the project that `request` names.

    A name without a project never matches a role that is bound to one; whoever has the role everywhere learns
    from the servicer what is wrong with the name.

    Raises: PermissionDenied PERMISSION_MISSING.
    """
    if permission.resource:
        project = permission.project(request) or "?"
    else:
        project = "" if permission.role == "viewer" else "*"
    check(principal, permission, project)


def hash_token(token: str) -> str:
    """What the token file holds instead of the token: its SHA-256 in hex (tokens are random, 256 bits)."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass
class TokenFile:
    """The hashed tokens of `path`, read again when the file changes.

    Unreadable (in mid-write), it keeps the tokens read last; missing at the start, it admits nobody.
    """

    path: Path
    _stamp: tuple[int, int, int] = (0, 0, 0)
    _next_check: float = 0.0
    _by_hash: dict[str, Principal] = field(default_factory=dict)
    _by_name: dict[str, Principal] = field(default_factory=dict)

    def look_up(self, token: str) -> Principal | None:
        """The principal of a token, or None."""
        self._refresh()
        return self._by_hash.get(hash_token(token))

    def principal(self, name: str) -> Principal | None:
        """The principal called `name`, or None."""
        self._refresh()
        return self._by_name.get(name)

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _RECHECK_SECONDS
        try:
            status = os.stat(self.path)
        except OSError:
            return
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return
        try:
            entries = json.loads(self.path.read_text())
            principals = [(str(e["sha256"]).lower(), parse_principal(e)) for e in entries]
        except (OSError, ValueError, KeyError, TypeError):
            return
        self._stamp = stamp
        self._by_hash = dict(principals)
        self._by_name = {p.name: p for _, p in principals}


def parse_principal(entry: Mapping[str, Any]) -> Principal:
    """One entry of the token file. Raises: KeyError, ValueError for what is not one."""
    if entry["kind"] not in _KINDS:
        raise ValueError(f"unknown kind of principal {entry['kind']!r}")
    roles = tuple(RoleGrant(r["role"], r.get("project", "*")) for r in entry["roles"])
    return Principal(str(entry["principal"]), entry["kind"], roles, token_id=str(entry["id"]))


def authenticate(tokens: TokenFile, grant_key: str, header: str, forwarded: str) -> Principal:
    """The caller, from the metadata `authorization` and `x-boardwright-principal`.

    Raises: Unauthenticated TOKEN_MISSING, TOKEN_UNKNOWN, GRANT_INVALID, GRANT_EXPIRED.
    """
    if not header[:7].lower() == "bearer ":
        raise Unauthenticated(
            "TOKEN_MISSING",
            "the call carries no token; log in with `boardwright login` or set BOARDWRIGHT_TOKEN",
        )
    if header.startswith(PREFIX, 7):
        grant = verify(grant_key, header[7:])
        return Principal(grant.principal, "worker", (RoleGrant("worker", grant.project),), grant=grant)
    principal = tokens.look_up(header[7:])
    if principal is None:
        raise Unauthenticated(
            "TOKEN_UNKNOWN", "the token is not known here (revoked, or of another server); log in again"
        )
    if forwarded and principal.kind == "service":
        return Principal(principal.name, "service", principal.roles, forwarded, principal.token_id)
    return principal
