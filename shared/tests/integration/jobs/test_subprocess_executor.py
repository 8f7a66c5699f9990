"""The embedded executor holds the executors' contract, and ends with its worker."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boardwright.jobs.executor import Execution
from boardwright.jobs.step_api import StepError
from boardwright.jobs.subprocess_executor import SubprocessExecutor
from boardwright.testing import sample_steps
from boardwright.testing.executor_contract import ExecutorContract, alive, wait_for

_WORKER = """
import asyncio, pathlib, sys
from boardwright.jobs.executor import Execution
from boardwright.jobs.executor import Execution
from boardwright.jobs.step_api import StepError
from boardwright.jobs.subprocess_executor import SubprocessExecutor
folder, kinds, pids = sys.argv[1:]
execution = Execution(pathlib.Path(folder), "sample/sleep", {"seconds": 600, "children": 1, "pids": pids}, {},
                      python_path=(kinds,))
asyncio.run(SubprocessExecutor().run(execution, lambda report: None))
"""


class TestSubprocessExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> SubprocessExecutor:
        return SubprocessExecutor(poll_seconds=0.02)


async def test_a_file_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    kinds, folder = sample_steps.install(tmp_path / "kinds"), tmp_path / "run"
    folder.mkdir()
    execution = Execution(folder, "sample/fill", {"bytes": 3_000_000}, {}, python_path=(kinds,))
    with pytest.raises(StepError) as caught:
        await SubprocessExecutor(max_file_bytes=1_000_000).run(execution, lambda report: None)
    assert caught.value.reason == "FILE_TOO_LARGE" and caught.value.deterministic


async def test_a_step_does_not_outlive_a_killed_worker(tmp_path: Path, writable: Path) -> None:
    kinds, pids, folder = sample_steps.install(tmp_path / "kinds"), writable / "pids", tmp_path / "run"
    folder.mkdir()
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, str(folder), kinds, str(pids)])
    try:
        await wait_for(pids.exists)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    members = [int(pid) for pid in pids.read_text(encoding="ascii").split()]
    assert len(members) == 2
    await wait_for(lambda: not any(alive(pid) for pid in members))
