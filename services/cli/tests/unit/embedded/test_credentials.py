"""Tokens are made once, kept, and stored for the services as hashes alone."""

import hashlib
import json
from pathlib import Path

import pytest

from boardwright.cli.embedded.credentials import SERVICES, ensure_credentials
from boardwright.cli.embedded.folder import DataFolder, write_json


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.make()
    return made


def test_the_second_start_finds_the_same_credentials(folder: DataFolder) -> None:
    assert ensure_credentials(folder) == ensure_credentials(folder)
    assert folder.credentials.stat().st_mode & 0o777 == 0o600


def test_tokens_are_stored_hashed_with_their_roles(folder: DataFolder) -> None:
    credentials = ensure_credentials(folder)
    text = folder.tokens.read_text(encoding="utf-8")
    assert credentials.admin not in text and credentials.worker not in text
    by_hash = {entry["sha256"]: entry for entry in json.loads(text)}
    admin = by_hash[hashlib.sha256(credentials.admin.encode()).hexdigest()]
    assert (admin["kind"], admin["roles"]) == ("user", [{"role": "admin", "project": "*"}])
    for name in SERVICES:
        entry = by_hash[hashlib.sha256(credentials.services[name].encode()).hexdigest()]
        assert (entry["principal"], entry["kind"]) == (name, "service")


def test_every_token_is_another(folder: DataFolder) -> None:
    credentials = ensure_credentials(folder)
    tokens = [credentials.admin, credentials.worker, *credentials.services.values()]
    assert len(set(tokens)) == len(tokens) == len(SERVICES) + 3


def test_entries_of_others_stay(folder: DataFolder) -> None:
    ensure_credentials(folder)
    entries = json.loads(folder.tokens.read_text(encoding="utf-8"))
    guest = {"id": "guest", "principal": "ci", "kind": "user", "sha256": "0" * 64, "roles": []}
    write_json(folder.tokens, [*entries, guest])
    ensure_credentials(folder)
    assert guest in json.loads(folder.tokens.read_text(encoding="utf-8"))
