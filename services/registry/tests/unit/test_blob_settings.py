from __future__ import annotations

from pathlib import Path

import pytest

from boardwright.registry.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOARDWRIGHT_TOKENS_FILE", str(tmp_path / "tokens.json"))
    monkeypatch.setenv("BOARDWRIGHT_DATABASE_URL", f"sqlite://{tmp_path}/registry.db")
    monkeypatch.setenv("BOARDWRIGHT_BLOBS_URL", f"file://{tmp_path}/blobs")


def test_bounds_of_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment().blob_policy.largest_bytes == 8 << 30
    monkeypatch.setenv("BOARDWRIGHT_BLOB_LARGEST_BYTES", "1000")
    monkeypatch.setenv("BOARDWRIGHT_BLOB_GRACE_SECONDS", "60")
    policy = Settings.from_environment().blob_policy
    assert (policy.largest_bytes, policy.grace_seconds) == (1000, 60)


@pytest.mark.parametrize("value", ["0", "-5", "10GB"])
def test_malformed_bounds(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BOARDWRIGHT_BLOB_LARGEST_BYTES", value)
    with pytest.raises(ValueError, match=f"BOARDWRIGHT_BLOB_LARGEST_BYTES is '{value}'"):
        Settings.from_environment()
