from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from boardwright.client.credentials import (
    Credentials,
    CredentialsMissing,
    find_credentials,
    login_file,
    read_login,
    write_login,
)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    here = tmp_path / "work" / "deep"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "share")}


def _stack(folder: Path, token: str, pid: int | None = None) -> None:
    (folder / "run").mkdir(parents=True)
    held = {"grpc": "127.0.0.1:1", "url": "http://u", "token": token, "pid": pid or os.getpid()}
    (folder / "run" / "endpoints.json").write_text(json.dumps(held))


def test_arguments_come_before_everything(environment: dict[str, str]) -> None:
    environment |= {"BOARDWRIGHT_ENDPOINT": "e:2", "BOARDWRIGHT_TOKEN": "t2"}
    assert find_credentials("e:1", "t1", environment=environment).token == "t1"
    found = find_credentials(environment=environment)
    assert (found.endpoint, found.token) == ("e:2", "t2")


def test_a_stack_is_found_from_folders_below_it(tmp_path: Path, environment: dict[str, str]) -> None:
    _stack(tmp_path / "work" / ".boardwright", "near")
    _stack(tmp_path / "share" / "boardwright", "user")
    write_login(Credentials("e:3", "login", "", ""), environment)
    assert find_credentials(environment=environment).token == "near"
    (tmp_path / "work" / ".boardwright" / "run" / "endpoints.json").unlink()
    assert find_credentials(environment=environment).token == "user"
    (tmp_path / "share" / "boardwright" / "run" / "endpoints.json").unlink()
    assert find_credentials(environment=environment).token == "login"


def test_a_killed_stack_is_not_taken_for_a_running_one(tmp_path: Path, environment: dict[str, str]) -> None:
    process = os.spawnvp(os.P_WAIT, "true", ["true"])
    assert process == 0
    _stack(tmp_path / "work" / ".boardwright", "dead", pid=2**22 - 1)
    with pytest.raises(CredentialsMissing):
        find_credentials(environment=environment)


def test_a_named_folder_is_the_only_one_looked_at(tmp_path: Path, environment: dict[str, str]) -> None:
    _stack(tmp_path / "share" / "boardwright", "user")
    environment |= {"BOARDWRIGHT_ENDPOINT": "e:2"}
    with pytest.raises(CredentialsMissing, match="empty"):
        find_credentials(data=tmp_path / "empty", environment=environment)


def test_a_token_that_was_given_is_shown_to_a_local_stack_too(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    _stack(tmp_path / "named", "admin")
    found = find_credentials(token="viewer", data=tmp_path / "named", environment=environment)
    assert (found.endpoint, found.token) == ("127.0.0.1:1", "viewer")
    environment["BOARDWRIGHT_TOKEN"] = "developer"
    assert find_credentials(data=tmp_path / "named", environment=environment).token == "developer"


def test_nothing_found_says_what_to_do(environment: dict[str, str]) -> None:
    with pytest.raises(CredentialsMissing, match="boardwright up --detach") as caught:
        find_credentials(environment=environment)
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "NO_SERVER")


def test_a_login_is_private_and_gives_its_token_to_its_endpoint_alone(environment: dict[str, str]) -> None:
    path = write_login(Credentials("https://e:443", "secret", "https://u", ""), environment)
    assert path == login_file(environment)
    assert path.stat().st_mode & 0o777 == 0o600
    stored = read_login(environment)
    assert stored is not None and stored.token == "secret"
    assert find_credentials("https://e:443", environment=environment).token == "secret"
    assert find_credentials("elsewhere:443", environment=environment).token == ""
    # Nobody acts under a stored login who named another token.
    assert find_credentials(token="mine", environment=environment).token == "mine"
    assert find_credentials(environment=environment | {"BOARDWRIGHT_TOKEN": "mine"}).token == "mine"
