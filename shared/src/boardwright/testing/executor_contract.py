"""What every executor must hold; inherit ``ExecutorContract`` and give it an ``executor`` fixture."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from boardwright.jobs import landlock
from boardwright.jobs.executor import LOG_FILE, Execution, Executor, ProgressReport
from boardwright.jobs.step_api import InputFile, Requirements, StepError
from boardwright.testing import sample_steps

Make = Callable[..., Execution]
_TOKEN_VARIABLE = "BOARDWRIGHT_SERVICE_TOKEN"  # noqa: S105 (the name of a variable)


async def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until ``condition()`` holds; fails the test when it does not within ``seconds``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain")
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


@contextmanager
def writable_folder() -> Iterator[Path]:
    """Give a folder outside their own that steps may write in all the same: tests watch them through it."""
    with tempfile.TemporaryDirectory(prefix="boardwright-", dir="/dev/shm") as folder:
        yield Path(folder)


class ExecutorContract:
    """Inherited by the tests of each executor."""

    @pytest.fixture
    def writable(self) -> Iterator[Path]:
        """See ``writable_folder``."""
        with writable_folder() as folder:
            yield folder

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        """Return a maker of executions of sample kinds, each in a folder of its own."""
        python_path = (sample_steps.install(tmp_path / "kinds"),)
        text = tmp_path / "text"
        text.write_text("digits", encoding="utf-8")

        def execution(kind: str, parameters: dict[str, Any], **given: Any) -> Execution:
            folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            inputs = {"text": InputFile(text, "sha256:" + "0" * 64, "text/plain")}
            return Execution(folder, kind, parameters, inputs, python_path=python_path, **given)

        return execution

    async def _failure(self, executor: Executor, execution: Execution) -> StepError:
        with pytest.raises(StepError) as caught:
            await executor.run(execution, lambda report: None)
        return caught.value

    async def test_all_that_a_step_made_comes_back(self, executor: Executor, make: Make) -> None:
        reports: list[ProgressReport] = []
        result = await executor.run(make("sample/upper", {"suffix": "!"}), reports.append)
        assert result.outputs["text"].path.read_text(encoding="utf-8") == "DIGITS!"
        assert result.outputs["text"].media_type == "text/plain"
        assert (result.values, result.warnings) == ({"length": 7}, ("letters only",))
        assert reports[-1] == ProgressReport(2, 2, "done")

    async def test_a_clear_failure_keeps_its_reason(self, executor: Executor, make: Make) -> None:
        for deterministic in (True, False):
            error = await self._failure(executor, make("sample/refuse", {"deterministic": deterministic}))
            assert (error.reason, error.deterministic) == ("REFUSED", deterministic)

    async def test_a_crash_is_told_with_its_last_words(self, executor: Executor, make: Make) -> None:
        signalled = await self._failure(executor, make("sample/crash", {"how": "signal"}))
        assert signalled.reason == "STEP_CRASHED" and "SIGSEGV" in signalled.message
        left = await self._failure(executor, make("sample/crash", {"how": "exit"}))
        assert left.reason == "STEP_CRASHED" and "about to leave" in left.message
        raised = await self._failure(executor, make("sample/crash", {"how": "raise"}))
        assert raised.reason == "STEP_CRASHED" and "an unexpected value" in raised.message
        assert not (signalled.deterministic or left.deterministic or raised.deterministic)

    @pytest.mark.parametrize("child", [False, True])
    async def test_the_memory_limit_holds_for_the_whole_group(
        self, executor: Executor, make: Make, child: bool
    ) -> None:
        requires = Requirements(memory_bytes=200 << 20)
        error = await self._failure(executor, make("sample/hoard", {"child": child}, requires=requires))
        assert error.reason == "OUT_OF_MEMORY" and error.deterministic
        assert "200 MiB" in error.message

    async def test_the_time_limit_ends_the_whole_group(
        self, executor: Executor, make: Make, writable: Path
    ) -> None:
        pids = writable / "pids"
        parameters = {"seconds": 600, "children": 2, "pids": str(pids)}
        seconds = 1.5
        while not pids.exists():  # the limit may end a step that a busy machine has not even begun
            requires = Requirements(time_limit_seconds=seconds)
            error = await self._failure(executor, make("sample/sleep", parameters, requires=requires))
            assert error.reason == "TIME_LIMIT_EXCEEDED" and f"{seconds:g} s" in error.message
            seconds *= 4
        members = [int(pid) for pid in pids.read_text(encoding="ascii").split()]
        assert len(members) == 3
        await wait_for(lambda: not any(alive(pid) for pid in members))

    async def test_cancelling_ends_the_whole_group(
        self, executor: Executor, make: Make, writable: Path
    ) -> None:
        pids = writable / "pids"
        execution = make("sample/sleep", {"seconds": 600, "children": 1, "pids": str(pids)})
        running = asyncio.ensure_future(executor.run(execution, lambda report: None))
        await wait_for(pids.exists)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        members = [int(pid) for pid in pids.read_text(encoding="ascii").split()]
        await wait_for(lambda: not any(alive(pid) for pid in members))

    async def test_a_full_disk_and_an_endless_log_are_told(self, executor: Executor, make: Make) -> None:
        full = await self._failure(executor, make("sample/fill", {"bytes": 10, "disk_full": True}))
        assert full.reason == "WORKER_DISK_FULL" and not full.deterministic
        endless = await self._failure(executor, make("sample/babble", {}))
        assert endless.reason == "LOG_TOO_LARGE"

    async def test_a_step_sees_no_secret_no_network_and_no_api(
        self, executor: Executor, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(_TOKEN_VARIABLE, "a token")
        secret = tmp_path / "credentials.json"
        secret.write_text("a token", encoding="utf-8")
        files = [str(secret), f"/proc/{os.getpid()}/mem"]
        parameters = {"files": files, "pids": [os.getpid()]}
        result = await executor.run(make("sample/surroundings", parameters), lambda report: None)
        environment = result.values["environment"]
        assert _TOKEN_VARIABLE not in environment and environment["HOME"] != os.environ.get("HOME")
        assert str(result.values["network"]).startswith("closed")
        assert result.values["api"] == []
        # Older kernels have no Landlock; the step's log says so there.
        assert not landlock.version() or all(
            str(seen).startswith("closed") for seen in result.values["files"].values()
        )
        assert landlock.version() < landlock.SCOPES_SINCE or all(
            str(seen).startswith("closed") for seen in result.values["signals"].values()
        )
        # A thread without the filter would be a way out of it.
        assert set(result.values["filters"]) == {"2"}

    async def test_an_unknown_kind_names_the_known_ones(self, executor: Executor, make: Make) -> None:
        error = await self._failure(executor, make("sample/none", {}))
        assert error.reason == "STEP_KIND_UNKNOWN" and "sample/upper" in error.message
        assert not error.deterministic
        broken = await self._failure(executor, make("sample/broken", {}))
        assert broken.reason == "STEP_KIND_BROKEN"

    async def test_another_environment_than_declared_is_refused(self, executor: Executor, make: Make) -> None:
        declared = make("sample/upper", {"suffix": ""}, environment={"letters": "latin"})
        error = await self._failure(executor, declared)
        assert error.reason == "ENVIRONMENT_DIFFERS" and not error.deterministic
        assert "letters: declared 'latin', here 'ascii'" in error.message
        older = make("sample/upper", {"suffix": ""}, environment={"letters": "ascii"}, version="0")
        error = await self._failure(executor, older)
        assert "step version: declared '0', here '1'" in error.message

    @pytest.mark.parametrize("how", ["symlink", "hard link", "fifo"])
    @pytest.mark.parametrize(
        ("places", "output"),
        [
            (["log.txt", "../log.txt"], ""),
            (["progress.jsonl"], ""),
            (["result.json"], ""),
            (["outputs/text"], "text"),
            (["outputs"], "credentials.json"),
        ],
    )
    async def test_what_a_step_plants_leads_nowhere(
        self, executor: Executor, make: Make, tmp_path: Path, places: list[str], output: str, how: str
    ) -> None:
        secret = tmp_path / "credentials.json"
        secret.write_text('{"outcome": "a token"}\n', encoding="utf-8")
        leads_to = str(secret.parent if places == ["outputs"] else secret)
        parameters = {"places": places, "how": how, "leads_to": leads_to, "output": output}
        execution = make("sample/plant", parameters)
        async with asyncio.timeout(20):
            error = await self._failure(executor, execution)
        assert error.reason in {"STEP_CRASHED", "STEP_FILE_REFUSED", "OUTPUT_MISSING"}
        log = execution.folder / LOG_FILE
        assert log.is_file() and not log.is_symlink()
        assert "a token" not in error.message + log.read_text(encoding="utf-8")

    async def test_an_output_outside_the_folder_is_refused(self, executor: Executor, make: Make) -> None:
        error = await self._failure(executor, make("sample/stray", {}))
        assert error.reason == "OUTPUT_MISSING"
