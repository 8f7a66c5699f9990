"""One embedded stack for all tests of this folder, and the command as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from boardwright.cli.embedded import stack
from boardwright.cli.output import for_people


@dataclass(frozen=True)
class Command:
    """`boardwright --data FOLDER …` in a process of its own."""

    data: Path

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BOARDWRIGHT_")}
        return subprocess.run(
            [sys.executable, "-m", "boardwright.cli", "--data", str(self.data), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def json(self, *arguments: str, timeout: float = 120) -> Any:
        done = self.run(*arguments, "-o", "json", timeout=timeout)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, code: int, *arguments: str) -> dict[str, Any]:
        """The error document of a command that must end with `code`."""
        done = self.run(*arguments, "-o", "json")
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        error: dict[str, Any] = json.loads(done.stdout)["error"]
        assert for_people(error["message"]) in done.stderr
        return error


@pytest.fixture(scope="session")
def boardwright(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    data = tmp_path_factory.mktemp("data")
    stack.up(data, detach=True)
    try:
        yield Command(data)
    finally:
        stack.down(data)
