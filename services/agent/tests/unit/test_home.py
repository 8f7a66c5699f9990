"""What is kept survives, and what is damaged is said."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from boardwright.agent.errors import Refused
from boardwright.agent.home import Home, Identity, Refusal, State, Trial


def test_state_and_identity_read_back(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    identity = Identity("http://s", "projects/p/fleets/f/devices/d", "projects/p/fleets/f", "tuf/x", "rpi")
    home.save_identity(identity)
    assert home.identity() == identity and identity.device_id == "d"
    refusal = Refusal("m", "rollouts/1", "releases/1", "GOLDEN_MISMATCH", "two differ")
    home.save_state(trial=Trial("b", "a", 2), refusal=refusal, clock_floor_us=5)
    assert home.state() == State(Trial("b", "a", 2), refusal, 5)
    assert home.save_state(trial=None).refusal == refusal


def test_unchanged_state_is_not_written_again(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.save_state(last="up-to-date")
    before = (tmp_path / "state.json").stat().st_mtime_ns
    home.save_state(last="up-to-date")
    assert (tmp_path / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other"}', '{"trial": 1}'])
def test_damaged_files(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    with pytest.raises(Refused) as missing:
        home.identity()
    assert missing.value.reason == "NOT_ENROLLED"
    (tmp_path / "identity.json").write_text(text)
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(Refused) as damaged:
        home.identity()
    assert damaged.value.reason == "HOME_DAMAGED"
    assert home.state() == State()


def test_the_lock_is_taken_as_nfs_wants_it_and_on_a_disk_that_is_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS, where many a board has its files in development, locks exclusively only what may be written."""
    modes: list[int] = []

    def lock(descriptor: int, operation: int) -> None:
        modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)

    def read_only(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, mode, dir_fd=dir_fd)

    opened = os.open
    monkeypatch.setattr(fcntl, "flock", lock)
    with Home(tmp_path).locked():
        monkeypatch.setattr(os, "open", read_only)
    with Home(tmp_path).locked():
        pass
    assert modes == [os.O_RDWR, os.O_RDONLY]
