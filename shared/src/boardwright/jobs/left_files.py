"""What a step's process left behind, read so that it leads nowhere else.

The step owns its folder: under any name there it may have put a link, a FIFO or a device, and it chose every
byte. The reader sees more of the machine than the step did. So nothing here follows a link, waits for a
FIFO's other end, or believes a value.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from boardwright.content.canonical import canonical_json, read_json
from boardwright.jobs.step_api import OutputFile, StepError

_MAX_RESULT_BYTES = 1 << 20
"""Values are figures (some kB); a job tells those of all its steps in one message of at most 16 MiB."""
_MAX_MESSAGE_LETTERS = 10_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 100
"""Levels of folders that are open at once while one is removed."""
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class LeftResult:
    """``result.json`` of a step that succeeded; ``outputs`` maps a name to (path as told, media type)."""

    outputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file that has this one name; its folder is the caller's and not the step's to rename.

    Raises:
        FileNotFoundError: there is none.
        StepError: STEP_FILE_REFUSED, it is a link (symbolic or hard), a FIFO, a device, a socket or a folder.
    """
    refused = StepError(
        "STEP_FILE_REFUSED",
        f"the step's process put something else than a plain file at {path.name}; "
        "look at the code that it ran (a network's module) before running it again.",
    )
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refused from error
    if not _is_plain(os.fstat(opened)):
        os.close(opened)
        raise refused
    return os.fdopen(opened, "rb")


def read_result(path: Path) -> LeftResult | None:
    """Read ``result.json``; None where there is none.

    Raises:
        StepError: the step's own failure, or STEP_FILE_REFUSED, RESULT_TOO_LARGE, RESULT_BROKEN.
    """
    try:
        with open_plain(path) as stream:
            written = stream.read(_MAX_RESULT_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(written) > _MAX_RESULT_BYTES:
        raise StepError(
            "RESULT_TOO_LARGE",
            f"the step's values exceed {_MAX_RESULT_BYTES >> 20} MiB: long ones belong in an output file.",
        )
    try:
        document = read_json(written)
        canonical_json(document)  # no NaN, no half of a surrogate pair
        if document["outcome"] == "succeeded":
            return _succeeded(document)
        error = document["error"]
        reason, message = str(error["reason"]), str(error["message"])[:_MAX_MESSAGE_LETTERS]
        deterministic = bool(error["deterministic"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(
            "RESULT_BROKEN",
            f"the step's result.json is not what a step writes ({type(error).__name__}); "
            "look at the code that the step ran.",
        ) from error
    raise StepError(reason if _REASON.fullmatch(reason) else "STEP_FAILED", message, deterministic)


def claim_outputs(
    told: Mapping[str, tuple[str, str]], outputs_dir: Path, claimed: Path
) -> dict[str, OutputFile]:
    """Move the step's outputs to ``claimed``, out of its reach, and return those that are plain files.

    The move renames ``outputs_dir`` itself, never what a link there points to; what stays behind of the step
    cannot change the folder any more while its files are checked and read.

    Raises:
        StepError: OUTPUT_MISSING, an output is not a plain file of that folder.
    """
    if not told:
        return {}
    outputs = {}
    try:
        outputs_dir.rename(claimed)
    except OSError as error:
        raise _output_missing(next(iter(told))) from error
    for name, (path, media_type) in told.items():
        if not _is_plain_below(claimed, path):
            raise _output_missing(name)
        outputs[name] = OutputFile(claimed / path, media_type)
    return outputs


def remove_left(folder: Path) -> None:
    """Remove a folder that a step wrote in, however deep it is and whatever its modes; what resists stays.

    What lies deeper than a bound is lifted to the top and removed from there: neither the stack, nor open
    files, nor the length of a path bound the depth, as they bound that of `shutil.rmtree`.
    """
    names = (f"{secrets.token_hex(8)}-{number}" for number in itertools.count())
    with contextlib.suppress(OSError):
        folder.chmod(stat.S_IRWXU)
        waiting = [folder]
        while waiting:
            path = waiting.pop()
            with contextlib.suppress(OSError):
                waiting += _emptied(os.open(path, _FOLDER), folder, names, _DEEPEST)
                if path != folder:
                    path.rmdir()
        folder.rmdir()


def _emptied(opened: int, top: Path, names: Iterator[str], levels: int) -> list[Path]:
    """Empty an open folder and close it; returns what lay ``levels`` below it, lifted to ``top``."""
    lifted = []
    try:
        for entry in list(os.scandir(opened)):
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=opened)
                    continue
                os.chmod(entry.name, stat.S_IRWXU, dir_fd=opened)
                if levels:
                    lifted += _emptied(os.open(entry.name, _FOLDER, dir_fd=opened), top, names, levels - 1)
                    os.rmdir(entry.name, dir_fd=opened)
                else:
                    name = top / next(names)
                    os.rename(entry.name, name, src_dir_fd=opened)
                    lifted.append(name)
    finally:
        os.close(opened)
    return lifted


def _succeeded(document: Mapping[str, Any]) -> LeftResult:
    outputs = {
        name: (_text(output["path"]), _text(output["media_type"]))
        for name, output in document["outputs"].items()
    }
    values = document["values"]
    if not isinstance(values, dict):
        raise TypeError("values are not an object")
    return LeftResult(outputs, values, tuple(_text(warning) for warning in document["warnings"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    return value


def _output_missing(name: str) -> StepError:
    return StepError("OUTPUT_MISSING", f"the output {name!r} is not a plain file of the step's folder.")


def _is_plain(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1


def _is_plain_below(root: Path, told: str) -> bool:
    """Tell whether ``told`` names a plain file below ``root`` without passing through any link."""
    parts = PurePosixPath(told).parts
    if not parts or "/" in parts or "//" in parts or ".." in parts:
        return False
    try:
        folders = [root, *(root.joinpath(*parts[:count]) for count in range(1, len(parts)))]
        if not all(stat.S_ISDIR(folder.lstat().st_mode) for folder in folders):
            return False
        return _is_plain(root.joinpath(*parts).lstat())
    except (OSError, ValueError):
        return False
