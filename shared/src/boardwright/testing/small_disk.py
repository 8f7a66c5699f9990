"""A disk that is soon full: a file system in memory, which needs root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted_memory(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a tmpfs of so many MiB at `folder` for the length of a `with`; skips the test without root."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        refused = subprocess.run(command, capture_output=True, check=False).returncode != 0
    except FileNotFoundError:
        refused = True
    if refused:
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, megabytes: int) -> None:
    """Make the mounted disk larger."""
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(folder)], check=True)
