"""The embedded stack as three functions: ``up``, ``status``, ``down``.

Run as ``python -m boardwright.cli.embedded.stack FOLDER`` it is the supervisor itself, which ``up`` with
``detach`` starts in the background.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardwright.cli.embedded.credentials import Credentials, ensure_credentials
from boardwright.cli.embedded.folder import (
    DataFolder,
    DataFolderInUse,
    FolderLock,
    find_holder,
    read_json,
    write_json,
)
from boardwright.cli.embedded.logs import tail
from boardwright.cli.embedded.ports import pick_ports
from boardwright.cli.embedded.processes import PORT_NAMES, Stack, describe
from boardwright.cli.embedded.supervisor import Report, StartFailed, Supervisor, leftover_processes

_DETACHED_SECONDS = 75.0
_DOWN_SECONDS = 10.0
_LEFTOVER_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """How to reach a running stack. ``grpc`` is ``host:port`` of the one authority for all services."""

    grpc: str
    url: str
    token: str


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process as the supervisor sees it. ``memory_bytes`` is its PSS (0 where it cannot be read)."""

    name: str
    running: bool
    pid: int
    restarts: int
    endpoint: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class StackStatus:
    """The state of a data folder's stack; ``endpoints`` is None unless it runs and is ready."""

    running: bool
    pid: int
    endpoints: Endpoints | None
    processes: tuple[ProcessStatus, ...]


def _ignore(done: int, total: int, what: str) -> None:
    return


def up(
    data: Path,
    detach: bool = False,
    on_progress: Report = _ignore,
    *,
    on_ready: Callable[[Endpoints], None] = lambda endpoints: None,
) -> Endpoints:
    """Start the stack on ``data``.

    With ``detach`` it returns once everything is ready and the stack stays in the background. Without, it
    calls ``on_ready``, stays until SIGTERM or SIGINT, stops everything within 5 s and returns.

    Raises:
        DataFolderInUse: the folder's stack runs already (its endpoints are in ``status``).
        StartFailed: a process did not start; the message holds the end of its log.
        OSError: the folder cannot be written.
    """
    folder = DataFolder(data.expanduser().resolve())
    folder.make()
    if detach:
        return _up_detached(folder, on_progress, on_ready)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        return _run(folder, on_progress, on_ready)
    finally:
        lock.release()


def status(data: Path) -> StackStatus:
    """Return whether the folder's stack runs, and its processes."""
    folder = DataFolder(data.expanduser().resolve())
    holder = find_holder(folder)
    held = read_json(folder.status)
    if holder is None or held is None:
        return StackStatus(holder is not None, int((holder or {}).get("pid", 0)), None, ())
    processes = tuple(_process_status(process) for process in held["processes"])
    return StackStatus(True, int(held["pid"]), read_endpoints(data), processes)


def down(data: Path, on_progress: Report = _ignore) -> bool:
    """Stop the folder's stack; returns False if none was running.

    Raises:
        TimeoutError: it still runs after 10 s.
    """
    folder = DataFolder(data.expanduser().resolve())
    holder = find_holder(folder)
    if holder is None:
        return False
    on_progress(0, 1, "stopping")
    if "pid" in holder:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(holder["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while find_holder(folder) is not None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the stack of {folder.root} (process {holder.get('pid')}) did not stop.")
        time.sleep(0.05)
    on_progress(1, 1, "stopped")
    return True


def read_endpoints(data: Path) -> Endpoints | None:
    """Return the endpoints of the stack on ``data``, or None where none is ready."""
    folder = DataFolder(data.expanduser().resolve())
    held, holder = read_json(folder.endpoints), find_holder(folder)
    # A supervisor that was killed leaves its file behind.
    if held is None or holder is None or holder.get("pid") != held["pid"]:
        return None
    return Endpoints(held["grpc"], held["url"], held["token"])


def _run(folder: DataFolder, report: Report, on_ready: Callable[[Endpoints], None]) -> Endpoints:
    _end_leftovers(folder)
    folder.endpoints.unlink(missing_ok=True)
    credentials = ensure_credentials(folder)
    ports_file = folder.root / "ports.json"
    ports = pick_ports(PORT_NAMES, read_json(ports_file) or {})
    write_json(ports_file, ports)
    _migrate(folder, report)
    supervisor = Supervisor(folder, describe(folder, credentials, ports))
    with supervisor.signals():
        supervisor.start(report)
        endpoints = _endpoints(Stack(ports), credentials)
        if not supervisor.stopping:
            held = {
                "grpc": endpoints.grpc,
                "url": endpoints.url,
                "token": endpoints.token,
                "pid": os.getpid(),
            }
            write_json(folder.endpoints, held)
            on_ready(endpoints)
        try:
            supervisor.watch()
        finally:
            folder.endpoints.unlink(missing_ok=True)
            supervisor.stop(report)
    return endpoints


def _endpoints(stack: Stack, credentials: Credentials) -> Endpoints:
    return Endpoints(stack.endpoint("gateway-grpc"), stack.gateway_url, credentials.admin)


def _migrate(folder: DataFolder, report: Report) -> None:
    report(0, 1, "checking the databases")
    command = [sys.executable, "-m", "boardwright.cli.embedded.migrating", str(folder.root)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-2000:]
        raise StartFailed(f"the databases in {folder.root} could not be brought up to date:\n{said}")


def _end_leftovers(folder: DataFolder) -> None:
    """Wait for processes of a killed supervisor to end (they got SIGTERM when it died), then kill them."""
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while left := leftover_processes(folder):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _up_detached(folder: DataFolder, report: Report, on_ready: Callable[[Endpoints], None]) -> Endpoints:
    if (holder := find_holder(folder)) is not None:
        raise DataFolderInUse(folder.root, holder)
    log = folder.logs / "supervisor.log"
    with log.open("wb") as stream:
        background = subprocess.Popen(
            [sys.executable, "-m", "boardwright.cli.embedded.stack", str(folder.root)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + _DETACHED_SECONDS
    told = ""
    while (endpoints := _endpoints_of(folder, background.pid)) is None:
        if background.poll() is not None:
            raise StartFailed(tail(log) or f"the stack of {folder.root} did not start; see {folder.logs}.")
        if time.monotonic() > deadline:
            background.terminate()
            raise StartFailed(_too_slow(folder, told))
        if (said := _forward(folder, told, report)) != told:
            told, deadline = said, time.monotonic() + _DETACHED_SECONDS
        time.sleep(0.02)
    report(1, 1, "ready")
    on_ready(endpoints)
    # It goes on without us; it must not be reported as forgotten when this object goes away.
    background.returncode = 0
    return endpoints


def _too_slow(folder: DataFolder, said: str) -> str:
    with contextlib.suppress(ValueError, KeyError):
        said = json.loads(said)["what"]
    return (
        f"the stack of {folder.root} got no further in {_DETACHED_SECONDS:.0f} s ({said or 'not begun'}). "
        f"On a busy machine try again: nothing is lost. Else {folder.logs} may tell why."
    )


def _endpoints_of(folder: DataFolder, pid: int) -> Endpoints | None:
    held = read_json(folder.endpoints)
    return read_endpoints(folder.root) if held is not None and held["pid"] == pid else None


def _forward(folder: DataFolder, told: str, report: Report) -> str:
    """Pass on the background supervisor's newest progress line, if it is another than ``told``."""
    said = tail(folder.run / "start-progress.json")
    if said and said != told:
        with contextlib.suppress(ValueError, KeyError):
            held = json.loads(said)
            report(held["done"], held["total"], held["what"])
    return said


def _process_status(held: dict[str, Any]) -> ProcessStatus:
    pid = held["pid"] or 0
    return ProcessStatus(
        name=held["name"],
        running=bool(pid),
        pid=pid,
        restarts=held["restarts"],
        endpoint=held["endpoint"],
        memory_bytes=proportional_memory(pid),
    )


def proportional_memory(pid: int) -> int:
    """Return a process's PSS in bytes (its private memory and its share of what is shared); 0 if unknown."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) << 10
    except OSError:
        return 0
    return 0


def main() -> int:
    """Run as the detached supervisor: progress goes to a file that ``up`` reads, errors to the log."""
    data = Path(sys.argv[1])
    progress = DataFolder(data).run / "start-progress.json"

    def report(done: int, total: int, what: str) -> None:
        write_json(progress, {"done": done, "total": total, "what": what})

    try:
        up(data, on_progress=report)
    except (DataFolderInUse, StartFailed, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 4
    finally:
        progress.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
