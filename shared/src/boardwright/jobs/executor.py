"""The Executor port: run one step somewhere, apart from everything else, and tell how it ended.

Implementations: ``boardwright.jobs.subprocess_executor`` (a process beside the worker). All of them inherit
the contract suite ``boardwright.testing.executor_contract``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from boardwright.jobs.step_api import InputFile, OutputFile, Requirements

LOG_FILE = "log.txt"
"""Name of the step's log in ``Execution.folder``, growing while it runs; the step cannot replace it."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One step, ready to run: its inputs lie on disk.

    ``folder`` is empty and belongs to this execution alone; whoever made it removes it. ``version`` and
    ``environment`` are what the cache key was made with ("" and None: not checked). ``python_path`` holds
    extra import folders. ``state_dir`` is the step's to write in and stays when it has ended (see
    ``StepRequest``).
    """

    folder: Path
    kind: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, InputFile]
    seed: int = 0
    version: str = ""
    environment: Mapping[str, str] | None = None
    requires: Requirements = field(default_factory=Requirements)
    python_path: tuple[str, ...] = ()
    state_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """How far a step is: ``done`` of ``total`` (0: unknown) and what it is doing."""

    done: int
    total: int
    what: str


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What a step that succeeded left behind, and what it used."""

    outputs: Mapping[str, OutputFile] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    peak_memory_bytes: int = 0
    seconds: float = 0.0
    log: Path | None = None


class Executor(Protocol):
    """Runs steps."""

    async def run(
        self, execution: Execution, on_progress: Callable[[ProgressReport], None]
    ) -> ExecutionResult:
        """Run one step to its end.

        Cancelling the awaiting task ends the step and everything it started before this returns.

        Raises:
            StepError: the step's own failure, or one of OUT_OF_MEMORY, TIME_LIMIT_EXCEEDED, LOG_TOO_LARGE
                (the limit named in the message), STEP_CRASHED (it ended without a result),
                STEP_KIND_UNKNOWN, STEP_KIND_BROKEN, ENVIRONMENT_DIFFERS, OUTPUT_MISSING, FILE_TOO_LARGE,
                WORKER_DISK_FULL, STEP_FILE_REFUSED, RESULT_TOO_LARGE, RESULT_BROKEN.
        """
        ...
