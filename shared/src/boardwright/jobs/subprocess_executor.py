"""The embedded executor: each step is a process group of its own beside the worker.

The group gets an environment of its own (a small allow-list, a home and a temporary folder inside the
execution's folder), is watched for resident memory and time, and is killed as a whole: on a limit, on
cancellation, and after the step has ended, so that nothing it started stays behind. If the worker itself
dies, the closed standard input ends the group (see ``boardwright.jobs.step``).

The step may write in ``<folder>/step`` alone, and in its ``state_dir`` where it has one. Its log lies beside
that, out of its reach (it inherits the open file), and what it leaves inside is read by
``boardwright.jobs.left_files``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from boardwright.content.canonical import read_json
from boardwright.jobs.confinement import ProcessLimits
from boardwright.jobs.executor import LOG_FILE, Execution, ExecutionResult, ProgressReport
from boardwright.jobs.left_files import LeftResult, claim_outputs, open_plain, read_result
from boardwright.jobs.process_memory import descendants, resident_bytes
from boardwright.jobs.step import PROGRESS_FILE, REQUEST_FILE, RESULT_FILE
from boardwright.jobs.step_api import StepError

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_POLL_SECONDS = 0.1
_MAX_LOG_BYTES = 64 << 20
_MAX_FILE_BYTES = 64 << 30
_MAX_COUNT = 1 << 53
_LOG_TAIL_BYTES = 2000


class SubprocessExecutor:
    """Runs steps as processes on this machine. ``max_file_bytes`` bounds each file a step writes."""

    def __init__(self, *, poll_seconds: float = _POLL_SECONDS, max_file_bytes: int = _MAX_FILE_BYTES) -> None:
        self._poll_seconds = poll_seconds
        self._max_file_bytes = max_file_bytes

    async def run(
        self, execution: Execution, on_progress: Callable[[ProgressReport], None]
    ) -> ExecutionResult:
        """See ``boardwright.jobs.executor.Executor.run``."""
        folder, step_folder = execution.folder, execution.folder / "step"
        _lay_out(execution, step_folder, self._max_file_bytes)
        started = time.monotonic()
        with (folder / LOG_FILE).open("xb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "boardwright.jobs.step", str(step_folder), "--end-with-stdin"),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                cwd=step_folder / "home",
                env=_environment(step_folder, execution.python_path),
                start_new_session=True,
            )
        watch = _Watch(execution, step_folder / PROGRESS_FILE, process.pid, on_progress, started)
        waiter = asyncio.ensure_future(process.wait())
        try:
            while not (await asyncio.wait({waiter}, timeout=self._poll_seconds))[0]:
                watch.check()
            watch.forward_progress()
        finally:
            _kill(process.pid)
            await asyncio.shield(waiter)
            if process.stdin is not None:
                process.stdin.close()
        result = _result(step_folder, folder / LOG_FILE, waiter.result())
        return ExecutionResult(
            outputs=claim_outputs(result.outputs, step_folder / "outputs", folder / "outputs"),
            values=result.values,
            warnings=result.warnings,
            peak_memory_bytes=watch.peak_bytes,
            seconds=time.monotonic() - started,
            log=folder / LOG_FILE,
        )


class _Watch:
    """Looks at a running step: forwards its progress and enforces its limits."""

    def __init__(
        self,
        execution: Execution,
        progress: Path,
        pid: int,
        on_progress: Callable[[ProgressReport], None],
        started: float,
    ) -> None:
        self.peak_bytes = 0
        self._execution = execution
        self._progress = progress
        self._pid = pid
        self._on_progress = on_progress
        self._deadline = started + execution.requires.time_limit_seconds
        self._offset = 0

    def check(self) -> None:
        """Raise StepError when a limit is passed."""
        requires, folder = self._execution.requires, self._execution.folder
        self.forward_progress()
        resident = resident_bytes(self._pid)
        self.peak_bytes = max(self.peak_bytes, resident)
        if resident > requires.memory_bytes:
            raise StepError(
                "OUT_OF_MEMORY",
                f"{self._execution.kind} used {resident >> 20} MiB, more than its limit of "
                f"{requires.memory_bytes >> 20} MiB; use a smaller model, input size or batch.",
                deterministic=True,
            )
        if time.monotonic() > self._deadline:
            raise StepError(
                "TIME_LIMIT_EXCEEDED",
                f"{self._execution.kind} ran longer than its limit of {requires.time_limit_seconds:g} s; "
                "give it less to do (fewer samples or epochs, a smaller model).",
                deterministic=False,
            )
        if (folder / LOG_FILE).stat().st_size > _MAX_LOG_BYTES:
            raise StepError(
                "LOG_TOO_LARGE", f"{self._execution.kind} wrote more than {_MAX_LOG_BYTES >> 20} MiB of log."
            )

    def forward_progress(self) -> None:
        """Pass on the newest complete line of ``progress.jsonl``; what is not progress is ignored."""
        try:
            with open_plain(self._progress) as stream:
                stream.seek(self._offset)
                written = stream.read(1 << 20)
        except FileNotFoundError:
            return
        complete = written.rfind(b"\n") + 1
        if not complete:
            return
        self._offset += complete
        last = written[:complete].splitlines()[-1]
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
            line = read_json(last)
            done, total = (min(max(int(line[name]), 0), _MAX_COUNT) for name in ("done", "total"))
            what = str(line["what"])[:200].encode("utf-8", "replace").decode()
            self._on_progress(ProgressReport(done, total, what))


def _lay_out(execution: Execution, step_folder: Path, max_file_bytes: int) -> None:
    outputs_dir = step_folder / "outputs"
    for made in (outputs_dir, step_folder / "home", step_folder / "tmp"):
        made.mkdir(parents=True)
    limits = ProcessLimits(
        # Resident memory is what counts; this stops an allocation that outruns the watch.
        data_bytes=execution.requires.memory_bytes * 3 // 2 + (1 << 30),
        file_bytes=max_file_bytes,
    )
    declared = execution.environment
    document = {
        "kind": execution.kind,
        "parameters": execution.parameters,
        "inputs": {
            name: {"path": str(given.path), "digest": given.digest, "media_type": given.media_type}
            for name, given in execution.inputs.items()
        },
        "seed": execution.seed,
        "outputs_dir": str(outputs_dir),
        "state_dir": str(execution.state_dir) if execution.state_dir is not None else None,
        "version": execution.version,
        "environment": None if declared is None else dict(declared),
        "limits": asdict(limits),
    }
    (step_folder / REQUEST_FILE).write_text(json.dumps(document, default=dict), encoding="utf-8")


def _environment(folder: Path, python_path: tuple[str, ...]) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONUNBUFFERED": "1"}
    if python_path:
        environment["PYTHONPATH"] = os.pathsep.join(python_path)
    return environment


def _kill(pid: int) -> None:
    """Kill the step's process group and the descendants that left it."""
    for member in descendants(pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _result(step_folder: Path, log: Path, status: int) -> LeftResult:
    result = read_result(step_folder / RESULT_FILE)
    if result is not None:
        return result
    ended = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    killed = " (the system's memory may have run out)" if status == -signal.SIGKILL else ""
    raise StepError(
        "STEP_CRASHED",
        f"the step's process ended without a result: {ended}{killed}. Its last words: {_log_tail(log)}",
        deterministic=False,
    )


def _log_tail(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
        return stream.read().decode("utf-8", "replace").strip() or "(none)"
