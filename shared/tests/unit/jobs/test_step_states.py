"""States stay for the next attempt alone, and are bounded in bytes and age."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from boardwright.jobs.step_api import StepError
from boardwright.jobs.worker.step_states import StepStates

STOPPED = KeyboardInterrupt()


def run(states: StepStates, key: str, leave: Callable[[Path], object], ends: BaseException) -> None:
    """Run a step that leaves something in its state and ends so."""
    with states.use("default", key) as path:
        assert path is not None
        leave(path / "state")
        raise ends


def interrupted(states: StepStates, key: str, size: int = 10) -> Path:
    """Run a step that leaves ``size`` bytes and is ended; returns its folder."""
    left: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        run(states, key, lambda file: (left.append(file.parent), file.write_bytes(bytes(size))), STOPPED)
    return left[0]


def test_an_interrupted_step_finds_its_own_state_and_one_that_ended_leaves_none(tmp_path: Path) -> None:
    states = StepStates(tmp_path)
    kept = interrupted(states, "a")
    with states.use("default", "b") as other, states.use("another", "a") as foreign:
        assert not list(other.iterdir()) and not list(foreign.iterdir())
    with StepStates(tmp_path).use("default", "a") as path:  # another worker process on this folder
        assert path == kept and (path / "state").exists()
    assert not list(tmp_path.iterdir())


def test_a_failure_for_good_leaves_none_and_another_leaves_the_state(tmp_path: Path) -> None:
    states = StepStates(tmp_path)
    for deterministic in (False, True):
        with pytest.raises(StepError):
            run(states, "a", lambda file: file.write_bytes(b"x"), StepError("REASON", "told", deterministic))
        assert bool(list(tmp_path.iterdir())) is not deterministic


def test_a_state_in_use_is_nobody_elses(tmp_path: Path) -> None:
    states = StepStates(tmp_path)
    with states.use("default", "a") as path, states.use("default", "a") as second:
        assert second is None
        assert path.exists()


def test_the_oldest_go_first_and_what_is_too_large_alone(tmp_path: Path) -> None:
    states = StepStates(tmp_path, max_bytes=25)
    kept = [interrupted(states, "a"), interrupted(states, "b")]
    for age, path in enumerate(kept):
        os.utime(path / "state", (1e9 + age, 1e9 + age))
    bounded = StepStates(tmp_path, max_bytes=25, max_age_seconds=1e12)
    newest = interrupted(bounded, "c")
    assert set(tmp_path.iterdir()) == {kept[1], newest}
    interrupted(bounded, "d", size=26)
    assert set(tmp_path.iterdir()) == {kept[1], newest}


def test_what_nobody_came_back_for_goes_by_its_age(tmp_path: Path) -> None:
    path = interrupted(StepStates(tmp_path), "a")
    changed = (path / "state").stat().st_mtime
    StepStates(tmp_path, max_age_seconds=10, clock=lambda: changed + 9)
    assert path.exists()
    StepStates(tmp_path, max_age_seconds=10, clock=lambda: changed + 11)
    assert not path.exists()


def test_links_and_folders_are_not_kept(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("told nobody")
    states = StepStates(tmp_path / "states")
    for key, plant in (("link", lambda file: file.symlink_to(secret)), ("folder", Path.mkdir)):
        with pytest.raises(KeyboardInterrupt):
            run(states, key, plant, STOPPED)
    assert not list((tmp_path / "states").iterdir())
    assert secret.exists()


def test_folders_in_folders_stop_no_worker(tmp_path: Path) -> None:
    """Deeper than Python's stack."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").touch()

    def dig(file: Path) -> None:
        opened = os.open(file.parent, os.O_RDONLY)
        for number in range(1100):
            os.mkdir("d", dir_fd=opened)
            inner = os.open("d", os.O_RDONLY, dir_fd=opened)
            os.close(opened)
            opened = inner
            if number == 1050:
                os.symlink(tmp_path / "secret", "link", dir_fd=opened)
                os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=opened))
        os.close(opened)

    with pytest.raises(KeyboardInterrupt):
        run(StepStates(tmp_path / "states"), "a", dig, STOPPED)
    assert not list((tmp_path / "states").iterdir())
    assert (tmp_path / "secret" / "file").exists()
