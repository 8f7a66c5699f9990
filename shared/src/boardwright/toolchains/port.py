"""What a toolchain is: a graph goes in, the files of one board's runtime come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from boardwright.toolchains.errors import ToolchainError

if TYPE_CHECKING:
    import numpy.typing as npt

    Tensor = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a toolchain can run on this machine.

    ``version`` is the runtime's version where it is installed. ``waits_for`` says in one sentence what is
    missing (an agent, an SDK, a package) and is empty where the toolchain runs here.
    """

    version: str
    waits_for: str = ""

    @property
    def available(self) -> bool:
        return not self.waits_for


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    ``graph`` is an ONNX file without external data. ``board`` is a catalogue name and ``architecture`` its
    processor's (``x86_64``, ``aarch64``). ``options`` are the toolchain's own; an unknown one is an error.
    ``output_dir`` exists and belongs to the build alone.
    """

    graph: Path
    board: str
    architecture: str
    output_dir: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A file the runtime needs, by its plain name in the Bundle."""

    name: str
    path: Path
    media_type: str


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """What a toolchain made.

    ``entry`` names the file the runtime opens. ``kernels`` counts the operators that will really run, after
    the runtime's own fusion (``{"QLinearConv": 27, …}``): the quantization nodes of a graph say little
    about that. ``integer_kernels`` counts those that multiply with integers. ``cpu_features`` are the
    processor features without which the artifact is slow or wrong. ``notes`` say what the toolchain changed
    for the better; ``warnings`` cost speed or accuracy.
    """

    files: tuple[BuiltFile, ...]
    entry: str
    runtime: str
    runtime_version: str
    runtime_settings: Mapping[str, Any]
    kernels: Mapping[str, int]
    integer_kernels: int = 0
    cpu_features: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def entry_path(self) -> Path:
        """Where the file that the runtime opens lies."""
        return next(file.path for file in self.files if file.name == self.entry)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph's input or output: NumPy's dtype name; a dimension that varies is None."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Session(Protocol):
    """A model opened in its real runtime."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once and return the outputs by name."""
        ...

    def prepare(self, inputs: Mapping[str, Tensor]) -> Callable[[], Sequence[Tensor]]:
        """Return what runs these inputs, checked once; for measuring."""
        ...


class Toolchain(ABC):
    """One way to build for one runtime. Implementations hold no state.

    Every implementation inherits the suite ``boardwright.testing.toolchain_contract``.
    """

    name: str
    """As the catalogue and the API know it."""
    runtime: str
    """The runtime on the board, as HardwarePins name it."""
    architectures: tuple[str, ...]
    """The processors it can build for."""
    option_values: Mapping[str, tuple[Any, ...]] = {}
    """Every option with its allowed values; the first is the default."""

    @abstractmethod
    def availability(self) -> Availability:
        """Tell whether this machine can run the toolchain, and what is missing."""

    @abstractmethod
    def vendor_commands(self, request: BuildRequest) -> tuple[tuple[str, ...], ...]:
        """Return the command lines of the vendor's own tools that make the same artifact.

        Pure: nothing is run and nothing needs to be installed. Where the toolchain works through a
        library instead, this is what a user would type to get an equivalent file.
        """

    @abstractmethod
    def build(self, request: BuildRequest) -> BuiltModel:
        """Build. The same request gives the same bytes.

        Raises:
            ToolchainError: any of its reasons; TOOLCHAIN_NEEDS_AGENT where this machine cannot build.
        """

    @abstractmethod
    def open(self, built: BuiltModel, threads: int) -> Session:
        """Open ``built`` in its real runtime; 0 ``threads`` leaves their number to the runtime.

        Raises:
            ToolchainError: TOOLCHAIN_NEEDS_AGENT where the runtime is not here.
        """

    def open_alternatives(self, graph: Path, built: BuiltModel) -> tuple[Session, ...]:
        """Open ``graph`` through other kernels than those that run ``built``, which was made from it.

        How far they lie apart is what golden samples must tolerate from another machine. Empty where there
        are none.
        """
        return ()

    def checked_options(self, request: BuildRequest) -> dict[str, Any]:
        """Return the request's options with defaults filled in.

        Raises:
            ToolchainError: OPTION_INVALID, ARCHITECTURE_UNSUPPORTED.
        """
        if request.architecture not in self.architectures:
            raise ToolchainError(
                "ARCHITECTURE_UNSUPPORTED",
                f"Toolchain {self.name} builds for {', '.join(self.architectures)}, not for "
                f"{request.architecture or 'an unnamed architecture'} (board {request.board}).",
            )
        for name, value in request.options.items():
            allowed = self.option_values.get(name)
            if allowed is None:
                known = ", ".join(self.option_values) or "none"
                raise ToolchainError(
                    "OPTION_INVALID",
                    f"Toolchain {self.name} has no option {name!r}; its options are: {known}.",
                )
            if value not in allowed:
                raise ToolchainError(
                    "OPTION_INVALID",
                    f"Option {name} of toolchain {self.name} cannot be {value!r}; "
                    f"choose one of: {', '.join(map(str, allowed))}.",
                )
        return {name: request.options.get(name, allowed[0]) for name, allowed in self.option_values.items()}


def check_inputs(expected: tuple[TensorInfo, ...], given: Mapping[str, Tensor]) -> None:
    """Refuse inputs that do not fit.

    Raises:
        ToolchainError: INPUT_MISMATCH, naming the input and both shapes.
    """
    import numpy as np

    names = {info.name for info in expected}
    if names != set(given):
        raise ToolchainError(
            "INPUT_MISMATCH",
            f"The graph's inputs are {', '.join(sorted(names))}; given were {', '.join(sorted(given))}.",
        )
    for info in expected:
        array = given[info.name]
        fits = len(array.shape) == len(info.shape) and all(
            want is None or want == have for want, have in zip(info.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(info.dtype):
            raise ToolchainError(
                "INPUT_MISMATCH",
                f"Input {info.name} must be {info.dtype} of shape {list(info.shape)}; "
                f"given was {array.dtype} of shape {list(array.shape)}.",
            )
