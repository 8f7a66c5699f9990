"""Runs the stack's processes: start, wait until ready, restart what crashed, stop in order.

One thread and one loop: it sleeps in ``select`` over the processes' log pipes and a pipe that signals wake.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import IO, Any, cast

from boardwright.cli.embedded.folder import DataFolder, read_json, write_json
from boardwright.cli.embedded.logs import RotatingLog, tail
from boardwright.cli.embedded.processes import ProcessSpec, full_environment

Report = Callable[[int, int, str], None]

_READY_SECONDS = 60.0
_FIRST_STOP_SECONDS = 2.0
_STOP_SECONDS = 4.5
_FIRST_BACKOFF_SECONDS = 0.25
_MAX_BACKOFF_SECONDS = 15.0


class StartFailed(Exception):
    """A process did not become ready; the message carries the end of its log and where the rest is."""


class Supervised:
    """One process of the stack, started again and again."""

    def __init__(self, folder: DataFolder, spec: ProcessSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self.start_at = 0.0
        self._folder = folder
        self._log = RotatingLog(folder.logs / f"{spec.name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._failures = 0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        return self._process is not None and self._served()

    def start(self) -> int:
        """Start the process; returns the descriptor of its log pipe."""
        self._folder.ready_file(self.spec.name).unlink(missing_ok=True)
        self._folder.state(self.spec.name).mkdir(exist_ok=True)
        command = [sys.executable, "-m", "boardwright.cli.embedded.child", str(os.getpid())]
        self._process = subprocess.Popen(
            [*command, self.spec.module, *self.spec.arguments],
            env=full_environment(self._folder, self.spec),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C reaches the supervisor alone, which stops them in order.
            process_group=0,
        )
        pipe = cast(IO[bytes], self._process.stdout)
        os.set_blocking(pipe.fileno(), False)
        return pipe.fileno()

    def copy_log(self) -> bool:
        """Append what the process wrote to its log; False once the pipe is closed."""
        if self._process is None or self._process.stdout is None:
            return False
        while True:
            try:
                written = os.read(self._process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return True
            if not written:
                return False
            self._log.write(written)

    def reap(self) -> int | None:
        """Return the exit status if the process has ended, and plan its restart."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self.copy_log()
        if self._process.stdout is not None:
            self._process.stdout.close()
        # One that served and was killed comes back at once; one that cannot start must not spin.
        self._failures = 1 if self._served() else self._failures + 1
        backoff = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** (self._failures - 1))
        self.start_at = time.monotonic() + backoff
        self._process = None
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _served(self) -> bool:
        return self._folder.ready_file(self.spec.name).exists()

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def note(self, line: str) -> None:
        """Add a line of the supervisor's own to the process's log."""
        self._log.write(f"supervisor: {line}\n".encode())


class Supervisor:
    """Owns the processes of one data folder, whose lock its caller holds."""

    def __init__(self, folder: DataFolder, specs: Sequence[ProcessSpec]) -> None:
        self._folder = folder
        self._all = [Supervised(folder, spec) for spec in specs]
        self._selector = selectors.DefaultSelector()
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopping

    def start(self, report: Report, *, ready_seconds: float = _READY_SECONDS) -> None:
        """Start everything and wait until all of it serves; ``stop`` may be asked for meanwhile.

        Args:
            ready_seconds: how long it may take until another process is ready.

        Raises:
            StartFailed: a process kept ending, or was not ready in time. Everything is stopped.
        """
        deadline = time.monotonic() + ready_seconds
        report(0, len(self._all), "starting")
        for process in self._all:
            self._launch(process)
        self._write_status()
        told = -1
        while not self._stopping and not all(process.ready for process in self._all):
            ready = [process.spec.name for process in self._all if process.ready]
            if len(ready) != told:
                told, deadline = len(ready), time.monotonic() + ready_seconds
                waiting = [process.spec.name for process in self._all if process.spec.name not in ready]
                report(told, len(self._all), "starting: waiting for " + ", ".join(waiting))
            late = time.monotonic() > deadline
            for process in self._all:
                if (late and not process.ready) or process.restarts >= 3:
                    self.stop(report)
                    raise StartFailed(self._explain(process))
            self._turn(0.02)
        if not self._stopping:
            self._write_status()
            report(len(self._all), len(self._all), "ready")

    def watch(self) -> None:
        """Keep everything running until SIGTERM or SIGINT; needs ``signals()`` around it."""
        while not self._stopping:
            wake = min((p.start_at for p in self._all if p.pid is None), default=None)
            self._turn(None if wake is None else max(0.0, wake - time.monotonic()))

    def stop(self, report: Report) -> bool:
        """Stop everything within five seconds; returns whether all of it drained by itself."""
        self._stopping = True
        deadline = time.monotonic() + _STOP_SECONDS
        first = [process for process in self._all if process.spec.stop_first]
        self._end(first, time.monotonic() + _FIRST_STOP_SECONDS, report)
        clean = self._end(self._all, deadline, report)
        for process in self._all:
            if process.pid is not None:
                process.note("killed, it did not stop in time")
                process.send(signal.SIGKILL)
        self._end(self._all, time.monotonic() + 1.0, report)
        for process in self._all:
            process.close()
        self._selector.close()
        self._folder.status.unlink(missing_ok=True)
        return clean

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the loop, and SIGCHLD wake it, while the block runs."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)

        def stop(number: int, frame: FrameType | None) -> None:
            self._stopping = True

        def wake(number: int, frame: FrameType | None) -> None:
            return

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, wake)
        pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._selector.register(reading, selectors.EVENT_READ, None)
        try:
            yield
        finally:
            signal.set_wakeup_fd(pipe_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reading)
            os.close(writing)

    def _launch(self, process: Supervised) -> None:
        self._selector.register(process.start(), selectors.EVENT_READ, process)

    def _turn(self, timeout: float | None) -> None:
        """Wait for logs or signals once; collect what ended and start again what is due."""
        for key, _ in self._selector.select(timeout):
            process = key.data
            if process is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif not process.copy_log():
                self._selector.unregister(key.fd)
        for process in self._all:
            self._keep(process)

    def _keep(self, process: Supervised) -> None:
        descriptor = None if process.pid is None else self._descriptor(process)
        status = process.reap()
        if status is not None:
            if descriptor is not None:
                self._selector.unregister(descriptor)
            if not self._stopping:
                process.note(f"ended with status {status}; it is started again")
            self._write_status()
        if process.pid is None and not self._stopping and time.monotonic() >= process.start_at:
            process.restarts += 1
            self._launch(process)
            self._write_status()

    def _descriptor(self, process: Supervised) -> int | None:
        for key in list(self._selector.get_map().values()):
            if key.data is process:
                return int(key.fd)
        return None

    def _end(self, processes: Sequence[Supervised], deadline: float, report: Report) -> bool:
        for process in processes:
            process.send(signal.SIGTERM)
        while any(process.pid is not None for process in processes) and time.monotonic() < deadline:
            self._turn(0.05)
            left = [process.spec.name for process in self._all if process.pid is not None]
            report(len(self._all) - len(left), len(self._all), "stopping")
        return all(process.pid is None for process in processes)

    def _explain(self, process: Supervised) -> str:
        path = self._folder.logs / f"{process.spec.name}.log"
        return f"{process.spec.name} did not start; the end of its log ({path}):\n{tail(path)}"

    def _write_status(self) -> None:
        held: list[dict[str, Any]] = [
            {
                "name": process.spec.name,
                "pid": process.pid,
                "restarts": process.restarts,
                "endpoint": process.spec.endpoint,
            }
            for process in self._all
        ]
        with contextlib.suppress(OSError):  # a full disk must not end the services
            write_json(self._folder.status, {"pid": os.getpid(), "processes": held})


def leftover_processes(folder: DataFolder) -> list[int]:
    """Return processes of an earlier supervisor that still run (it was killed; they are ending)."""
    status = read_json(folder.status)
    if status is None:
        return []
    return [
        process["pid"]
        for process in status["processes"]
        if process["pid"] is not None and _is_ours(process["pid"], status["pid"])
    ]


def _is_ours(pid: int, supervisor: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            command = stream.read().split(b"\0")
    except OSError:
        return False
    return b"boardwright.cli.embedded.child" in command and str(supervisor).encode() in command
