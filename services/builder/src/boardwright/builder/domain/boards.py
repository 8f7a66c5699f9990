"""What the catalogue knows of a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Soc:
    """The system on chip. ``cores`` is 0 where the host has to be asked."""

    name: str
    architecture: str
    cpu: str
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A processor besides the CPU. ``int8_tops`` is the maker's peak figure, 0 where none is published."""

    name: str
    title: str
    architecture: str
    precisions: tuple[str, ...]
    int8_tops: float = 0.0


@dataclass(frozen=True, slots=True)
class PowerMode:
    """A mode of the board; ``watts`` is 0 where the maker names no budget."""

    name: str
    description: str
    watts: float = 0.0


@dataclass(frozen=True, slots=True)
class QuantizationProfile:
    """Which integers a runtime's kernels are fast and exact with; empty ``operators`` means all it has.

    ``power_of_two`` says that scales must be powers of two: the arithmetic shifts and does not multiply.
    ``float16`` says what the runtime gains by float16 beside integers: ``none``, or layers ``inside`` a graph
    whose inputs and outputs stay float32, or ``everywhere``.
    """

    name: str
    title: str
    activation_type: str
    weight_type: str
    activation_symmetric: bool
    weight_symmetric: bool
    per_channel: bool
    reduce_range: bool
    format: str
    operators: tuple[str, ...]
    power_of_two: bool = False
    float16: str = "none"

    def to_scheme(self) -> dict[str, Any]:
        """Return the fields that the compiler's quantize pass takes as ``profile``."""
        return {
            "activation_type": self.activation_type,
            "weight_type": self.weight_type,
            "activation_symmetric": self.activation_symmetric,
            "weight_symmetric": self.weight_symmetric,
            "per_channel": self.per_channel,
            "reduce_range": self.reduce_range,
            "power_of_two": self.power_of_two,
            "operators": list(self.operators),
            "float16": self.float16,
        }


@dataclass(frozen=True, slots=True)
class OperatorSupport:
    """Which ONNX operators a runtime takes to its accelerator.

    ``ask_runtime`` names an installed runtime to be asked instead of ``operators``. ``fallback`` tells
    whether the runtime itself runs the others on the CPU; where it does not, one of them fails the build.
    ``lowest_opset`` and ``highest_opset`` are 0 where nothing is said.
    """

    name: str
    title: str
    fallback: bool
    operators: frozenset[str] = frozenset()
    restrictions: Mapping[str, str] | None = None
    ask_runtime: str = ""
    lowest_opset: int = 0
    highest_opset: int = 0


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime on the board, the processor it drives (``cpu`` or an accelerator's name), and its likings.

    ``profiles_without`` maps a processor feature to the profile of machines that lack it.
    """

    name: str
    title: str
    runs_on: str
    operator_support: OperatorSupport
    quantization_profile: QuantizationProfile
    profiles_without: Mapping[str, QuantizationProfile] = field(default_factory=dict)

    def profile_on(self, cpu_features: frozenset[str]) -> QuantizationProfile:
        """Return the profile of a machine with these features: another where one is missing."""
        for feature, profile in self.profiles_without.items():
            if feature not in cpu_features:
                return profile
        return self.quantization_profile


@dataclass(frozen=True, slots=True)
class Source:
    """Where the catalogue has a fact from."""

    id: str
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Board:
    """A catalogue entry; ``entry`` is the whole of it as it was written."""

    name: str
    title: str
    description: str
    soc: Soc
    accelerators: tuple[Accelerator, ...]
    memory_bytes: int
    memory_kind: str
    power_modes: tuple[PowerMode, ...]
    runtimes: tuple[Runtime, ...]
    toolchains: tuple[str, ...]
    sources: tuple[Source, ...]
    entry: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        return self.soc.architecture

    @property
    def quantization_profile(self) -> QuantizationProfile:
        """The profile of the board's first runtime, the one it is bought for."""
        return self.runtimes[0].quantization_profile

    def runtime(self, name: str) -> Runtime:
        """Return the board's runtime called ``name``.

        Raises:
            KeyError: the board has none of that name.
        """
        for runtime in self.runtimes:
            if runtime.name == name:
                return runtime
        raise KeyError(name)

    def accelerator_architecture(self, runtime: Runtime) -> str:
        """Return the architecture that ``runtime`` drives; empty for the CPU."""
        return next((a.architecture for a in self.accelerators if a.name == runtime.runs_on), "")
