"""Small steps with every way to end, for tests of executors, workers and services.

They are made known to a step process by ``install(folder)``: an import folder whose one ``dist-info``
carries the entry points.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from boardwright.jobs.step_api import (
    Determinism,
    OutputFile,
    Progress,
    StepError,
    StepKind,
    StepRequest,
    StepResult,
    implements,
)

UPPER = StepKind("sample/upper", "1", defaults={"suffix": ""}, environment=lambda: {"letters": "ascii"})
SLEEP = StepKind("sample/sleep", "1", Determinism.OBSERVED)


@implements(UPPER)
def upper(request: StepRequest, progress: Progress) -> StepResult:
    """Write the input ``text`` in capitals, with ``suffix`` appended."""
    progress(0, 2, "reading")
    text = request.input("text").path.read_text(encoding="utf-8").upper() + request.parameters["suffix"]
    progress(1, 2, "writing")
    path = request.output_path("text.txt")
    path.write_text(text, encoding="utf-8")
    progress(2, 2, "done")
    return StepResult({"text": OutputFile(path, "text/plain")}, {"length": len(text)}, ("letters only",))


@implements(SLEEP)
def sleep(request: StepRequest, progress: Progress) -> StepResult:
    """Sleep ``seconds``; writes its process id and those of its children to ``pids`` when asked."""
    members = [os.getpid()]
    for _ in range(int(request.parameters.get("children", 0))):
        members.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    if "pids" in request.parameters:
        partial = Path(request.parameters["pids"] + ".partial")
        partial.write_text(" ".join(map(str, members)), encoding="ascii")
        partial.replace(request.parameters["pids"])
    seconds = float(request.parameters["seconds"])
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        progress(int((seconds - left) * 10), int(seconds * 10), "sleeping")
        time.sleep(min(left, 0.05))
    return StepResult(values={"slept": seconds})


def go_on(request: StepRequest, progress: Progress) -> StepResult:
    """Count one attempt in the state; end well in the attempt ``of``, else sleep until ended."""
    assert request.state_dir is not None
    state = request.state_dir / "attempts"
    attempts = len(state.read_bytes()) + 1 if state.exists() else 1
    state.write_bytes(b"x" * attempts)
    progress(attempts, int(request.parameters["of"]), "going on")
    if attempts < int(request.parameters["of"]):
        time.sleep(600)
    return StepResult(values={"attempts": attempts})


def refuse(request: StepRequest, progress: Progress) -> StepResult:
    """Fail as the parameters say."""
    raise StepError("REFUSED", "refused as asked.", bool(request.parameters["deterministic"]))


def fail_until(request: StepRequest, progress: Progress) -> StepResult:
    """Fail (not deterministically) until it was run ``times`` before; counts in the file ``counter``."""
    counter = Path(request.parameters["counter"])
    runs = len(counter.read_text(encoding="ascii")) if counter.exists() else 0
    counter.write_text("x" * (runs + 1), encoding="ascii")
    if runs < int(request.parameters["times"]):
        raise StepError("BUSY", "the device was busy.", deterministic=False)
    return StepResult(values={"runs": runs + 1})


def crash(request: StepRequest, progress: Progress) -> StepResult:
    """End without a result: by a signal, by an exit, or by an exception."""
    how = request.parameters["how"]
    if how == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "exit":
        print("about to leave", flush=True)  # noqa: T201 (the step's log)
        os._exit(3)
    raise ValueError("an unexpected value")


def hoard(request: StepRequest, progress: Progress) -> StepResult:
    """Take memory, 16 MiB at a time, for ever; in a child process when asked."""
    if request.parameters.get("child"):
        code = "import time\nheld = []\nwhile True: held.append(b'x' * (16 << 20)); time.sleep(0.01)"
        subprocess.run([sys.executable, "-c", code], check=False)
        time.sleep(600)
    held = []
    while True:
        held.append(b"x" * (16 << 20))
        time.sleep(0.01)


def fill(request: StepRequest, progress: Progress) -> StepResult:
    """Write a file of ``bytes`` zeros; ``disk_full`` pretends that the disk ended there."""
    with request.output_path("zeros").open("wb") as stream:
        stream.write(bytes(int(request.parameters["bytes"])))
    if request.parameters.get("disk_full"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return StepResult()


def babble(request: StepRequest, progress: Progress) -> StepResult:
    """Print for ever."""
    while True:
        print("x" * 100_000)  # noqa: T201 (the step's log)


def surroundings(request: StepRequest, progress: Progress) -> StepResult:
    """Tell what the step can reach: its environment, internet sockets, the ``files`` and ``pids`` asked for.

    ``filters`` holds the seccomp mode of each of its threads.
    """
    try:
        socket.socket(socket.AF_INET).close()
        network = "open"
    except OSError as error:
        network = f"closed ({error.errno})"
    files = {}
    for path in request.parameters.get("files", ()):
        try:
            Path(path).read_bytes()
            files[path] = "open"
        except OSError as error:
            files[path] = f"closed ({error.errno})"
    signals = {}
    for pid in request.parameters.get("pids", ()):
        try:
            os.kill(pid, 0)
            signals[str(pid)] = "open"
        except OSError as error:
            signals[str(pid)] = f"closed ({error.errno})"
    filters = []
    for status in sorted(Path("/proc/self/task").glob("*/status")):
        filters += [
            line.split()[1] for line in status.read_text().splitlines() if line.startswith("Seccomp:")
        ]
    modules = sorted(name for name in sys.modules if name.startswith("boardwright.api"))
    return StepResult(
        values={
            "environment": dict(os.environ),
            "network": network,
            "files": files,
            "signals": signals,
            "filters": filters,
            "api": modules,
        }
    )


def stray(request: StepRequest, progress: Progress) -> StepResult:
    """Name an output outside the step's folder."""
    return StepResult({"passwd": OutputFile(Path("/etc/passwd"), "text/plain")})


def plant(request: StepRequest, progress: Progress) -> StepResult:
    """Put a ``how`` (symlink, hard link, fifo) that leads to ``leads_to`` at ``places`` of the step's folder.

    Ends without the harness's own result: by the planted one, or by naming ``output`` in one.
    """
    folder = request.outputs_dir.parent
    for place in request.parameters["places"]:
        path = folder / place
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
            if request.parameters["how"] == "fifo":
                os.mkfifo(path)
            elif request.parameters["how"] == "symlink":
                path.symlink_to(request.parameters["leads_to"])
            else:
                path.hardlink_to(request.parameters["leads_to"])
    if output := request.parameters.get("output"):
        named = {"text": {"path": output, "media_type": "text/plain"}}
        result = {"outcome": "succeeded", "outputs": named, "values": {}, "warnings": []}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    time.sleep(0.3)  # the worker looks at progress and log meanwhile
    os._exit(0)


def install(folder: Path) -> str:
    """Make the sample kinds known below ``folder``; returns the import folder to put on the python path."""
    information = folder / "sample_steps-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-steps\nVersion: 1.0\n")
    functions = (
        upper, sleep, go_on, refuse, fail_until, crash, hoard, fill, babble, surroundings, stray, plant,
    )  # fmt: skip
    lines = [f"sample/{f.__name__.replace('_', '-')} = {__name__}:{f.__name__}" for f in functions]
    lines.append(f"sample/broken = {__name__}:nothing_of_that_name")
    (information / "entry_points.txt").write_text("[boardwright.steps]\n" + "\n".join(lines) + "\n")
    return str(folder)
