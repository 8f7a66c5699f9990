"""A stack that starts slowly is waited for while it gets further."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from boardwright.cli.embedded import stack
from boardwright.cli.embedded.folder import DataFolder, write_json

WAITS = 30


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    """A folder whose supervisor never ends by itself, on a clock on which every look takes ten seconds."""
    folder = DataFolder(tmp_path)
    folder.make()
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(stack, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
    supervisor = SimpleNamespace(pid=1, poll=lambda: None, terminate=lambda: None, returncode=None)
    monkeypatch.setattr(stack.subprocess, "Popen", lambda *_, **__: supervisor)
    return folder


def _looks(monkeypatch: pytest.MonkeyPatch, each: Callable[[int], None]) -> None:
    looks = itertools.count()

    def endpoints(folder: DataFolder, pid: int) -> object:
        look = next(looks)
        each(look)
        return "endpoints" if look == WAITS else None

    monkeypatch.setattr(stack, "_endpoints_of", endpoints)


def test_one_that_gets_further_is_waited_for(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = folder.run / "start-progress.json"
    _looks(monkeypatch, lambda n: write_json(progress, {"done": n // 4, "total": 7, "what": f"{n // 4}"}))
    assert stack.up(folder.root, detach=True) == "endpoints"


def test_one_that_stands_still_is_given_up_with_what_it_did_last(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"done": 0, "total": 7, "what": "checking the databases"}
    _looks(monkeypatch, lambda _: write_json(folder.run / "start-progress.json", told))
    with pytest.raises(stack.StartFailed, match=r"no further in 75 s \(checking the databases\).* try again"):
        stack.up(folder.root, detach=True)
