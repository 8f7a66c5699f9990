"""What a step is written against: plain types, files in and files out.

A step is a function ``run(request, progress) -> StepResult`` that an entry point of the group
``boardwright.steps`` names::

    [project.entry-points."boardwright.steps"]
    "compile/quantize" = "boardwright.compiler.steps.quantize:run"

It runs in a process of its own (``python -m boardwright.jobs.step``) with an empty environment, a memory
limit and a time limit. It sees files and JSON, never a token and never the network, and must not import
``boardwright.api``: a toolchain that needs an old protobuf fits beside it.

This module imports nothing but the standard library, so services may import it to declare their kinds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

ENTRY_POINT_GROUP = "boardwright.steps"
ANY_BOARD = "any"
DEFAULT_MEMORY_BYTES = 4 << 30
DEFAULT_TIME_LIMIT_SECONDS = 3600.0

_KIND_NAME = re.compile(r"[a-z][a-z0-9-]*/[a-z][a-z0-9-]*")
_OUTPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Determinism(StrEnum):
    """What running a kind again with the same inputs gives."""

    PURE = "pure"
    """The same bytes."""
    SEEDED = "seeded"
    """The same bytes for the same seed, which is part of the cache key. What trains sums in an order that
    depends on the number of threads and on the CPU: on another one the last bits of its weights differ."""
    OBSERVED = "observed"
    """A measurement: another figure every time. Cached by its key until someone measures again."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a worker must offer to lease a step.

    ``board`` is a catalogue name, or ``any``. ``toolchain`` and ``accelerator`` are empty where the step
    needs none. ``memory_bytes`` bounds the resident memory of the whole process group, and
    ``time_limit_seconds`` its wall-clock time.
    """

    board: str = ANY_BOARD
    toolchain: str = ""
    accelerator: str = ""
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    time_limit_seconds: float = DEFAULT_TIME_LIMIT_SECONDS

    def __post_init__(self) -> None:
        if self.memory_bytes <= 0 or self.time_limit_seconds <= 0:
            raise ValueError("memory_bytes and time_limit_seconds must be positive")


def _no_environment() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class StepKind:
    """A named piece of work and what its result depends on besides parameters and inputs.

    ``version`` changes whenever the implementation may give other bytes. ``defaults`` are filled into a
    step's parameters before its cache key is made, so that writing a default out changes nothing.
    ``environment`` tells library versions and CPU features without importing what is heavy
    (``importlib.metadata.version``).
    """

    name: str
    version: str
    determinism: Determinism = Determinism.PURE
    defaults: Mapping[str, Any] = field(default_factory=dict)
    requires: Requirements = field(default_factory=Requirements)
    environment: Callable[[], Mapping[str, str]] = _no_environment

    def __post_init__(self) -> None:
        if not _KIND_NAME.fullmatch(self.name):
            raise ValueError(f"step kind {self.name!r} is not of the form 'area/name'")
        if not self.version:
            raise ValueError(f"step kind {self.name!r} has no version")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file the step may read: its content is known by ``digest`` (``sha256:…``)."""

    path: Path
    digest: str
    media_type: str


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file the step wrote below its ``outputs_dir``."""

    path: Path
    media_type: str


@dataclass(frozen=True, slots=True)
class StepRequest:
    """What the step was asked to do. ``parameters`` have their defaults filled in.

    ``state_dir`` is a folder for plain files that outlives this process: what an interrupted attempt at the
    same work (the same cache key, on the same worker) kept there to go on from, and what this one keeps. It
    may be empty at any time, and None where nothing outlives the process. A result must not depend on it.
    """

    kind: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, InputFile]
    seed: int
    outputs_dir: Path
    state_dir: Path | None = None

    def input(self, name: str) -> InputFile:
        """Return the input called ``name``.

        Raises:
            StepError: INPUT_MISSING, when the caller gave no such input.
        """
        try:
            return self.inputs[name]
        except KeyError:
            given = ", ".join(sorted(self.inputs)) or "none"
            raise StepError(
                "INPUT_MISSING", f"{self.kind} needs the input {name!r}; the inputs given are: {given}."
            ) from None

    def output_path(self, name: str) -> Path:
        """Return where to write the output file ``name`` (a plain file name)."""
        if not _OUTPUT_NAME.fullmatch(name):
            raise ValueError(f"output name {name!r} must be a plain file name")
        return self.outputs_dir / name


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the step made: files by name, small JSON values, and warnings in plain sentences."""

    outputs: Mapping[str, OutputFile] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class StepError(Exception):
    """A failure that the step understands.

    ``deterministic`` failures (a refused pickle, a graph that cannot be quantized) are remembered and
    not tried again until someone asks; others (a device that was busy) are retried a few times.
    """

    def __init__(self, reason: str, message: str, deterministic: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.deterministic = deterministic


class Progress(Protocol):
    """Tells how far the step is: ``done`` of ``total`` (0 when unknown) and what it is doing now."""

    def __call__(self, done: int, total: int, what: str) -> None: ...


class StepFunction(Protocol):
    """The signature behind every ``boardwright.steps`` entry point."""

    def __call__(self, request: StepRequest, progress: Progress) -> StepResult: ...


_F = TypeVar("_F", bound=Callable[..., StepResult])
_KIND_ATTRIBUTE = "boardwright_step_kind"


def implements(kind: StepKind) -> Callable[[_F], _F]:
    """Mark a step function with its kind, so that the step process can check the declared environment."""

    def mark(function: _F) -> _F:
        setattr(function, _KIND_ATTRIBUTE, kind)
        return function

    return mark


def kind_of(function: Callable[..., Any]) -> StepKind | None:
    """Return the kind that ``implements`` gave to ``function``, or None."""
    kind = getattr(function, _KIND_ATTRIBUTE, None)
    return kind if isinstance(kind, StepKind) else None


def ignore_progress(done: int, total: int, what: str) -> None:
    """Do nothing with progress; for calling a step's function directly."""
