"""`boardwright token`: what it writes is what the services admit."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from boardwright.cli import tokens
from boardwright.cli.app import app
from boardwright.rpc.auth import RoleGrant, TokenFile
from boardwright.rpc.errors import AlreadyExists, BoardwrightError, FailedPrecondition, NotFound


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def said(*words: str) -> str:
    result = CliRunner().invoke(app, ["token", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_token_is_admitted_with_its_role_until_it_is_revoked(file: Path) -> None:
    token = said("add", "anna@example.com", "--role", "developer", "--file", str(file)).strip()
    principal = TokenFile(file).look_up(token)
    assert principal is not None
    assert (principal.name, principal.kind) == ("anna@example.com", "user")
    assert principal.roles == (RoleGrant("developer", "*"),)
    assert token not in file.read_text()
    said("revoke", "anna@example.com", "--file", str(file))
    assert TokenFile(file).look_up(token) is None


def test_json_has_the_token_once(file: Path) -> None:
    made = json.loads(
        said("add", "ci", "--role", "releaser", "--only-in", "vision", "--file", str(file), "-o", "json")
    )
    principal = TokenFile(file).look_up(made.pop("token"))
    assert principal is not None and principal.roles == (RoleGrant("releaser", "vision"),)
    assert json.loads(said("ls", "--file", str(file), "-o", "json")) == [made]
    assert "releaser in vision" in said("ls", "--file", str(file))


@pytest.mark.parametrize("role", ["service", "worker"])
def test_services_and_workers_are_of_their_kind(file: Path, role: str) -> None:
    token = said("add", "own", "--role", role, "--file", str(file)).strip()
    principal = TokenFile(file).look_up(token)
    assert principal is not None and principal.kind == role


def test_a_second_token_of_a_principal_needs_an_id(file: Path) -> None:
    tokens.add(file, tokens.entry("anna", "anna", "bw_1", "viewer"))
    with pytest.raises(AlreadyExists, match="--id"):
        tokens.add(file, tokens.entry("anna", "anna", "bw_2", "admin"))
    tokens.add(file, tokens.entry("anna-laptop", "anna", "bw_2", "viewer"))
    with pytest.raises(NotFound, match="token ls"):
        tokens.revoke(file, "bert")
    tokens.revoke(file, "anna")
    assert TokenFile(file).look_up("bw_1") is None
    assert TokenFile(file).look_up("bw_2") is not None


def test_many_at_once_lose_none(file: Path) -> None:
    with ThreadPoolExecutor(8) as executor:
        list(
            executor.map(lambda n: tokens.add(file, tokens.entry(f"u{n}", "u", f"t{n}", "viewer")), range(40))
        )
    assert {each["id"] for each in tokens.read(file)} == {f"u{n}" for n in range(40)}


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '["a"]', '[{"id": "a"}]', "3", "\x00"])
def test_a_damaged_file_is_told_and_kept(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(FailedPrecondition, match="holds no tokens"):
        tokens.add(file, tokens.entry("anna", "anna", "bw_1", "viewer"))
    assert file.read_text() == text


@pytest.mark.parametrize(("principal", "project"), [("", "*"), ("a b", "*"), ("a#b", "*"), ("a", "A/b")])
def test_odd_names_are_refused(principal: str, project: str) -> None:
    with pytest.raises(BoardwrightError) as refused:
        tokens.entry("id", principal, "bw_1", "viewer", project)
    assert refused.value.reason == "FIELD_INVALID"


def test_a_folder_without_tokens_says_how_there_come_some(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--data", str(tmp_path), "token", "ls"])
    assert result.exit_code == 2
    assert "boardwright up" in result.output


def test_a_file_that_cannot_be_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="--file") as refused:
        tokens.add(tmp_path / "absent" / "tokens.json", tokens.entry("a", "a", "bw_1", "viewer"))
    assert refused.value.reason == "TOKENS_NOT_WRITABLE"


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        tokens.read(tmp_path)


def test_the_file_stays_whose_it_was(file: Path) -> None:
    """An administrator changes it, and services that run as another user read it."""
    tokens.add(file, tokens.entry("anna", "anna", "bw_1", "viewer"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 1235)
    before = file.stat()
    tokens.add(file, tokens.entry("bert", "bert", "bw_2", "viewer"))
    for path in (file, file.with_name(".tokens.json.lock")):
        after = path.stat()
        assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
