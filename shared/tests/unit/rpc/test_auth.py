import json
import os
from types import SimpleNamespace

import pytest

from boardwright.rpc import auth
from boardwright.rpc.auth import (
    Permission,
    Principal,
    RoleGrant,
    TokenFile,
    authenticate,
    hash_token,
    permits,
)
from boardwright.rpc.errors import PermissionDenied, Unauthenticated
from boardwright.rpc.grants import Grant, mint


def entry(token, principal, role, project="*", kind="user"):
    return {
        "id": principal,
        "principal": principal,
        "kind": kind,
        "sha256": hash_token(token),
        "roles": [{"role": role, "project": project}],
    }


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps([
        entry("t-ann", "ann", "developer", "vision"), entry("t-comp", "compiler", "service", kind="service"),
        entry("t-work", "worker-1", "worker", kind="worker"),
    ]))  # fmt: skip
    return TokenFile(path)


def named(project):
    return SimpleNamespace(name=f"projects/{project}/models/m")


def test_a_token_names_its_principal(tokens):
    ann = authenticate(tokens, "", "Bearer t-ann", "")
    assert (ann.name, ann.kind, ann.actor, ann.service) == ("ann", "user", "ann", "")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "TOKEN_MISSING"),
        ("Basic x", "TOKEN_MISSING"),
        ("Bearer nope", "TOKEN_UNKNOWN"),
        ("Bearer ", "TOKEN_UNKNOWN"),
    ],
)
def test_other_headers_are_refused(tokens, header, reason):
    with pytest.raises(Unauthenticated) as caught:
        authenticate(tokens, "", header, "")
    assert caught.value.reason == reason


def test_a_stored_hash_is_not_a_token(tokens):
    with pytest.raises(Unauthenticated):
        authenticate(tokens, "", f"Bearer {hash_token('t-ann')}", "")


def test_only_a_service_may_forward_a_principal(tokens):
    forwarded = authenticate(tokens, "", "Bearer t-comp", "ann")
    assert (forwarded.actor, forwarded.service) == ("ann", "compiler")
    assert authenticate(tokens, "", "Bearer t-ann", "root").actor == "ann"


def test_a_grant_is_a_worker_in_its_project_alone(tokens):
    grant = Grant("worker-9", "vision", frozenset({"sha256:aa"}), "l/", 4e9)
    principal = authenticate(tokens, "k", f"Bearer {mint('k', grant)}", "ann")
    assert (principal.kind, principal.grant, principal.actor) == ("worker", grant, "worker-9")
    reading = permits("viewer", "name", worker=True)
    auth.check(principal, reading, "vision")
    for permission, project in ((reading, "other"), (permits("viewer", "name"), "vision")):
        with pytest.raises(PermissionDenied):
            auth.check(principal, permission, project)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("viewer", {"viewer"}), ("developer", {"viewer", "developer"}),
     ("releaser", {"viewer", "developer", "releaser"}),
        ("admin", {"viewer", "developer", "releaser", "admin"}),
     ("worker", set()), ("service", {"viewer", "developer", "releaser", "admin"})],
)  # fmt: skip
def test_roles_rise(role, allowed):
    principal = Principal("x", roles=(RoleGrant(role, "vision"),))
    assert {
        r for r in ("viewer", "developer", "releaser", "admin") if principal.may(permits(r), "vision")
    } == allowed


def test_a_role_counts_in_its_project_alone():
    principal = Principal("x", roles=(RoleGrant("admin", "a"), RoleGrant("viewer", "b")))
    assert principal.may(permits("developer"), "a")
    assert not principal.may(permits("developer"), "b")
    assert not principal.may(permits("viewer"), "c")


def test_a_permission_finds_the_project_in_the_request():
    assert permits("viewer", "name").project(named("vision")) == "vision"
    assert permits("viewer", "model.name").project(SimpleNamespace(model=named("vision"))) == "vision"
    assert Permission("viewer").project(named("vision")) == ""


def test_a_name_without_project_gives_no_right(tokens):
    """A malformed name must not be judged as "any project" for someone who has one project only."""
    ann = authenticate(tokens, "", "Bearer t-ann", "")
    permission = permits("viewer", "name")
    with pytest.raises(PermissionDenied):
        auth.check_request(ann, permission, SimpleNamespace(name="models/m"))
    auth.check_request(ann, permission, named("vision"))


def test_what_concerns_every_project_needs_a_role_in_every_project():
    request, leasing = SimpleNamespace(), permits("admin", worker=True)
    for role in ("admin", "worker"):
        with pytest.raises(PermissionDenied) as denied:
            auth.check_request(Principal("x", roles=(RoleGrant(role, "vision"),)), leasing, request)
        assert "in every project" in denied.value.message
        auth.check_request(Principal("x", roles=(RoleGrant(role, "*"),)), leasing, request)
    looking = permits("viewer")
    auth.check_request(Principal("x", roles=(RoleGrant("viewer", "vision"),)), looking, request)


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(tokens, monkeypatch):
    monkeypatch.setattr(auth, "_RECHECK_SECONDS", 0.0)
    assert tokens.look_up("t-ann") is not None
    tokens.path.write_text("[{")
    assert tokens.look_up("t-ann") is not None
    tokens.path.write_text(json.dumps([entry("t-bob", "bob", "viewer")]))
    assert tokens.look_up("t-ann") is None
    assert tokens.principal("bob") is not None
    os.remove(tokens.path)
    assert tokens.look_up("t-bob") is not None


def test_without_a_file_nobody_is_admitted(tmp_path):
    assert TokenFile(tmp_path / "none.json").look_up("x") is None
