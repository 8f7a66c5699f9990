from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boardwright.content import Digest, InvalidContent, digest_file
from boardwright.content.hashing import BackgroundHasher


@settings(deadline=None)  # machines are busy
@given(st.binary(max_size=200))
def test_round_trip(data: bytes) -> None:
    digest = Digest.of(data)
    assert digest.hex == hashlib.sha256(data).hexdigest()
    assert str(digest) == f"sha256:{digest.hex}"
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "md5:" + "0" * 64,
        "0" * 64,
        "sha256:" + "0" * 64 + "\n",
        " sha256:" + "0" * 64,
        "sha256:" + "０" * 64,
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidContent, match="not a digest"):
        Digest.parse(text)


@pytest.mark.parametrize("digits", ["", "0" * 63, "A" * 64, "0" * 64 + "\n"])
def test_malformed_digits(digits: str) -> None:
    with pytest.raises(InvalidContent, match="not a SHA-256"):
        Digest(digits)


def test_files(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(data)
    assert digest_file(tmp_path / "file") == Digest.of(data)
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "missing")


def test_in_the_background() -> None:
    with BackgroundHasher() as hasher:
        assert hasher.digest() == Digest.of(b"")
        for _ in range(20):
            hasher.update(b"x" * 10_000)
        assert hasher.digest() == Digest.of(b"x" * 200_000)
