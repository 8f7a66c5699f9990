"""The supervisor with small real processes: start, restart, stop, and the death of the supervisor."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boardwright.cli.embedded import stack
from boardwright.cli.embedded.folder import DataFolder, DataFolderInUse, read_json

_SLEEPER = """
import json, os, pathlib, signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "failing" in sys.argv:
    sys.exit("this one cannot start")
print("a line of", sys.argv[1], flush=True)
pathlib.Path(os.environ["BOARDWRIGHT_READY_FILE"]).write_text(json.dumps({"endpoint": ""}))
time.sleep(600)
"""
_DRIVER = """
import pathlib, sys
from boardwright.cli.embedded import stack
from boardwright.cli.embedded.processes import ProcessSpec
def describe(folder, credentials, ports):
    path = {"PYTHONPATH": str(pathlib.Path(__file__).parent)}
    made = [ProcessSpec(name, "sleeper", (name,), "", path, name == "worker") for name in sys.argv[2:]]
    return made
stack.describe = describe
stack._migrate = lambda folder, report: None
sys.exit(stack.main())
"""


def _wait(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


class Running:
    """A supervisor process over sleepers."""

    def __init__(self, folder: Path, *names: str) -> None:
        (folder / "code").mkdir(exist_ok=True)
        (folder / "code" / "sleeper.py").write_text(_SLEEPER)
        driver = folder / "code" / "driver.py"
        driver.write_text(_DRIVER)
        self.data = folder / "data"
        self.folder = DataFolder(self.data)
        self.process = subprocess.Popen(
            [sys.executable, str(driver), str(self.data), *names], stderr=subprocess.PIPE
        )

    def wait_ready(self) -> None:
        _wait(lambda: self.process.poll() is not None or stack.read_endpoints(self.data))
        assert self.process.poll() is None

    def pids(self) -> dict[str, int]:
        return {process.name: process.pid for process in stack.status(self.data).processes}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    with contextlib.ExitStack() as cleanup:

        def run(*names: str) -> Running:
            running = Running(tmp_path, *names)
            cleanup.callback(running.process.communicate)
            cleanup.callback(running.process.terminate)
            return running

        yield run


def test_everything_starts_is_told_and_stops_in_time(start: Callable[..., Running]) -> None:
    running = start("registry", "worker")
    running.wait_ready()
    told = stack.status(running.data)
    assert told.running and told.pid == running.process.pid
    assert [process.name for process in told.processes] == ["registry", "worker"]
    assert all(process.running and process.memory_bytes > 1 << 20 for process in told.processes)
    endpoints = json.loads(running.folder.endpoints.read_text())
    assert running.folder.endpoints.stat().st_mode & 0o777 == 0o600 and endpoints["token"].startswith("bw_")
    assert "a line of registry" in (running.folder.logs / "registry.log").read_text()
    pids = running.pids()
    started = time.monotonic()
    assert stack.down(running.data)
    assert time.monotonic() - started < 5
    assert running.process.wait(5) == 0
    assert not any(_runs(pid) for pid in pids.values())
    assert stack.read_endpoints(running.data) is None and not stack.status(running.data).running
    assert not stack.down(running.data)


def test_a_second_start_on_the_same_data_says_who_holds_it(start: Callable[..., Running]) -> None:
    running = start("registry")
    running.wait_ready()
    with pytest.raises(DataFolderInUse, match=str(running.process.pid)):
        stack.up(running.data)
    with pytest.raises(DataFolderInUse, match=str(running.process.pid)):
        stack.up(running.data, detach=True)


def test_a_crashed_process_is_started_again(start: Callable[..., Running]) -> None:
    running = start("registry", "worker")
    running.wait_ready()
    before = running.pids()
    os.kill(before["registry"], signal.SIGKILL)
    _wait(lambda: running.pids()["registry"] not in (0, before["registry"]))
    assert running.pids()["worker"] == before["worker"]
    (registry,) = (p for p in stack.status(running.data).processes if p.name == "registry")
    assert registry.restarts == 1
    _wait(running.folder.ready_file("registry").exists)


def test_a_process_that_ignores_sigterm_is_killed_within_five_seconds(start: Callable[..., Running]) -> None:
    running = start("stubborn", "worker")
    running.wait_ready()
    pids = running.pids()
    started = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(8) == 0
    assert time.monotonic() - started < 6
    assert not any(_runs(pid) for pid in pids.values())


def test_a_process_that_cannot_start_is_told_with_its_log(start: Callable[..., Running]) -> None:
    running = start("failing")
    _, said = running.process.communicate(timeout=20)
    assert running.process.returncode == 4
    assert b"failing did not start" in said and b"this one cannot start" in said


def test_processes_end_with_a_killed_supervisor_and_the_next_start_works(
    start: Callable[..., Running],
) -> None:
    running = start("registry", "stubborn")
    running.wait_ready()
    pids = running.pids()
    running.process.kill()
    running.process.wait()
    _wait(lambda: not _runs(pids["registry"]))
    ports = read_json(running.folder.root / "ports.json")
    again = start("registry")
    again.wait_ready()
    assert not _runs(pids["stubborn"])
    assert read_json(again.folder.root / "ports.json") == ports
