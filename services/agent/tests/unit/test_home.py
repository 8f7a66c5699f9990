"""What is kept survives, and what is damaged is said."""

from __future__ import annotations

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
