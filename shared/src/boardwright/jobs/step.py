"""The step process: ``python -m boardwright.jobs.step <folder>``.

Reads ``<folder>/request.json``, confines itself (memory, file size, no network), calls the kind's function
and writes ``<folder>/result.json``; progress goes to ``<folder>/progress.jsonl``, one JSON object a line.
The exit status is 0 whenever ``result.json`` was written, whatever it says: a process that ends without one
has crashed.

``--end-with-stdin`` ends the whole process group when standard input closes, so that no step outlives the
worker that started it.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from boardwright.jobs import confinement
from boardwright.jobs.step_api import (
    ENTRY_POINT_GROUP,
    InputFile,
    StepError,
    StepFunction,
    StepRequest,
    StepResult,
    kind_of,
)

REQUEST_FILE = "request.json"
RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.jsonl"
_PROGRESS_INTERVAL_SECONDS = 0.1
_OUT_OF_MEMORY = ("can't allocate memory", "std::bad_alloc", "bad allocation", "Failed to allocate memory")
"""How PyTorch and ONNX Runtime say that an allocation was refused, in exceptions of their own."""
_FILES_OPEN = (
    "This worker's kernel has no Landlock (Linux 5.13 or newer): the step saw all of its user's files. "
    "Run code that others wrote (a network's module) on such a worker only under a user of its own."
)


class FileProgress:
    """Appends progress as JSON lines, at most ten a second; the last step of a stage is never dropped."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._written_at = float("-inf")
        self._what = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        now = self._clock()
        complete = total > 0 and done >= total
        if now - self._written_at < _PROGRESS_INTERVAL_SECONDS and what == self._what and not complete:
            return
        self._written_at, self._what = now, what
        self._stream.write(json.dumps({"done": done, "total": total, "what": what}) + "\n")
        self._stream.flush()


def read_request(folder: Path) -> tuple[StepRequest, dict[str, Any]]:
    """Read ``request.json``; returns the request and the whole document (limits, declared environment)."""
    document = json.loads((folder / REQUEST_FILE).read_text(encoding="utf-8"))
    inputs = {
        name: InputFile(Path(given["path"]), given["digest"], given["media_type"])
        for name, given in document["inputs"].items()
    }
    request = StepRequest(
        kind=document["kind"],
        parameters=document["parameters"],
        inputs=inputs,
        seed=int(document["seed"]),
        outputs_dir=Path(document["outputs_dir"]),
        state_dir=Path(document["state_dir"]) if document.get("state_dir") else None,
    )
    return request, document


def find_function(kind: str) -> StepFunction:
    """Load the function that the entry point ``kind`` of the group ``boardwright.steps`` names.

    Raises:
        StepError: STEP_KIND_UNKNOWN or STEP_KIND_BROKEN; not deterministic: another worker may have it.
    """
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    found = [point for point in points if point.name == kind]
    if not found:
        known = ", ".join(sorted({point.name for point in points})) or "none"
        raise StepError(
            "STEP_KIND_UNKNOWN",
            f"this worker has no step kind {kind!r} (it has: {known}); install the distribution that has it.",
            deterministic=False,
        )
    try:
        return cast(StepFunction, found[0].load())
    except Exception as error:
        traceback.print_exc()
        raise StepError(
            "STEP_KIND_BROKEN",
            f"step kind {kind!r} could not be imported ({type(error).__name__}: {error}); "
            "check the worker's installation.",
            deterministic=False,
        ) from error


def check_environment(function: StepFunction, declared: Mapping[str, str] | None, version: str = "") -> None:
    """Refuse to run where the libraries, or the step itself, differ from what the cache key was made with.

    Raises:
        StepError: ENVIRONMENT_DIFFERS, not deterministic: another worker may fit.
    """
    kind = kind_of(function)
    if kind is None or declared is None:
        return
    here = dict(kind.environment())
    if version:
        declared = {**declared, "step version": version}
        here["step version"] = kind.version
    differing = sorted(name for name in here.keys() | declared.keys() if here.get(name) != declared.get(name))
    if differing:
        told = "; ".join(
            f"{name}: declared {declared.get(name)!r}, here {here.get(name)!r}" for name in differing
        )
        raise StepError(
            "ENVIRONMENT_DIFFERS",
            f"this worker's environment is not the declared one ({told}); "
            "run a worker with the service's versions.",
            deterministic=False,
        )


def _describe(result: StepResult, outputs_dir: Path) -> dict[str, Any]:
    root = outputs_dir.resolve()
    outputs = {}
    for name, output in result.outputs.items():
        path = output.path.resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise StepError(
                "OUTPUT_MISSING", f"the step named the output {name!r} but wrote no such file in its folder."
            )
        outputs[name] = {"path": str(path.relative_to(root)), "media_type": output.media_type}
    return {
        "outcome": "succeeded",
        "outputs": outputs,
        "values": dict(result.values),
        "warnings": list(result.warnings),
    }


def _failure(reason: str, message: str, deterministic: bool) -> dict[str, Any]:
    error = {"reason": reason, "message": message, "deterministic": deterministic}
    return {"outcome": "failed", "error": error}


def perform(folder: Path) -> dict[str, Any]:
    """Run the request in ``folder`` in this process; returns what ``result.json`` shall say."""
    request, document = read_request(folder)
    try:
        function = find_function(request.kind)
        check_environment(function, document.get("environment"), document.get("version", ""))
        with (folder / PROGRESS_FILE).open("a", encoding="utf-8") as stream:
            result = function(request, FileProgress(stream))
        described = _describe(result, request.outputs_dir)
        json.dumps(described, allow_nan=False)
        return described
    except StepError as error:
        if _is_out_of_memory(error.__cause__):  # a loader took it for a damaged file
            return _out_of_memory()
        return _failure(error.reason, error.message, error.deterministic)
    except Exception as error:
        traceback.print_exc()
        if _is_out_of_memory(error):
            return _out_of_memory()
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EFBIG:
            told = "the step wrote a larger file than its worker allows; its input unpacks to too much."
            return _failure("FILE_TOO_LARGE", told, True)
        if number == errno.ENOSPC:
            told = "the worker's disk is full; free some space, the step is tried again."
            return _failure("WORKER_DISK_FULL", told, False)
        return _failure("STEP_CRASHED", f"{type(error).__name__}: {error}", False)


def _is_out_of_memory(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def _out_of_memory() -> dict[str, Any]:
    told = "the step ran out of memory; use a smaller model, input size or batch."
    return _failure("OUT_OF_MEMORY", told, True)


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json`` in one rename: readers see all of it or nothing."""
    partial = folder / (RESULT_FILE + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(result, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(folder / RESULT_FILE)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the step process."""
    parser = argparse.ArgumentParser(prog="python -m boardwright.jobs.step", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end-with-stdin", action="store_true")
    options = parser.parse_args(arguments)
    document = json.loads((options.folder / REQUEST_FILE).read_text(encoding="utf-8"))
    confinement.confine(confinement.ProcessLimits(**document.get("limits", {})))
    inputs = [Path(given["path"]) for given in document["inputs"].values()]
    kept = [Path(document["state_dir"])] if document.get("state_dir") else []
    files_closed = confinement.close_files([options.folder.resolve(), *kept], inputs)
    if options.end_with_stdin:
        # Its thread comes last: one that is older than the confinement would not be confined.
        confinement.end_group_with_stdin()
    result = perform(options.folder)
    if not files_closed:
        sys.stderr.write(_FILES_OPEN + "\n")
        if result["outcome"] == "succeeded":
            result["warnings"].append(_FILES_OPEN)
    write_result(options.folder, result)
    return 0


if __name__ == "__main__":
    # Skip interpreter teardown: native libraries' threads may hang or crash there, with the result on disk.
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
