"""The quantization scheme: which integer types, granularity and operators, as a board's kernels like them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from boardwright.compiler.engine.errors import QuantizationFailed

_TYPES = ("uint8", "int8")
WEIGHT_BOUND, REDUCED_BOUND = 127, 64
"""The largest integer of a symmetric INT8 weight, and of one of 7 bits, in ONNX Runtime's quantizer."""

LEAST_RANGE = 1e-6
"""How wide the range of a tensor is taken to be at least: what is constant has a scale, too."""

FLOAT16 = ("none", "inside", "everywhere")
INTEGER_OPERATORS = frozenset(
    {
        "Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "Clip", "Relu", "LeakyRelu", "Sigmoid", "MaxPool",
        "AveragePool", "GlobalAveragePool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze",
        "Split", "Slice", "Resize", "Pad", "Gather",
    }
)  # fmt: skip
"""Operators that ONNX Runtime's CPU provider runs on integers when Q and DQ surround them."""


@dataclass(frozen=True, slots=True)
class QuantizationScheme:
    """How tensors become integers.

    ``activation_type`` and ``weight_type`` are ``uint8`` or ``int8``. Symmetric tensors have zero point 0
    (128 for uint8). ``per_channel`` gives each output channel of a weight its own scale. ``reduce_range``
    is for x86 CPUs without VNNI, which add pairs of U8S8 products in 16 bits: weights are kept so small that
    no pair saturates (``bounds_pairs``), or to 7 bits. ``power_of_two`` takes
    only powers of two as scales, for fixed-point units that shift; everything is symmetric INT8 then.
    ``operators`` empty means ``INTEGER_OPERATORS``. ``float16`` says what the
    runtime gains by float16 beside integers: ``none``, or layers ``inside`` a graph whose inputs and outputs
    stay float32, or ``everywhere``.
    """

    activation_type: str = "uint8"
    weight_type: str = "int8"
    activation_symmetric: bool = False
    weight_symmetric: bool = True
    per_channel: bool = True
    reduce_range: bool = False
    power_of_two: bool = False
    operators: tuple[str, ...] = ()
    float16: str = "none"

    def __post_init__(self) -> None:
        for name in ("activation_type", "weight_type"):
            if getattr(self, name) not in _TYPES:
                raise QuantizationFailed(
                    "SCHEME_UNKNOWN",
                    f"{name} {getattr(self, name)!r} is not supported; choose one of {', '.join(_TYPES)}.",
                )
        if self.float16 not in FLOAT16:
            raise QuantizationFailed(
                "SCHEME_UNKNOWN",
                f"float16 {self.float16!r} is not known; choose one of {', '.join(FLOAT16)}.",
            )
        symmetric = self.activation_symmetric and self.weight_symmetric
        if self.power_of_two and (not symmetric or {self.activation_type, self.weight_type} != {"int8"}):
            raise QuantizationFailed(
                "SCHEME_UNKNOWN",
                "Scales that are powers of two go with symmetric int8 activations and weights: set "
                "activation_type and weight_type to int8, activation_symmetric and weight_symmetric to true.",
            )

    @property
    def label(self) -> str:
        """Return the scheme's usual short name, such as ``U8S8 per-channel``."""
        short = {"uint8": "U8", "int8": "S8"}
        granularity = "per-channel" if self.per_channel else "per-tensor"
        scales = " power-of-two" if self.power_of_two else ""
        return f"{short[self.activation_type]}{short[self.weight_type]}{scales} {granularity}"

    @property
    def integer_operators(self) -> frozenset[str]:
        """The operators that run on integers where nothing forbids it."""
        return frozenset(self.operators) or INTEGER_OPERATORS

    @property
    def weight_bound(self) -> int:
        """The largest integer that a symmetric weight becomes."""
        return REDUCED_BOUND if self.reduce_range and not self.bounds_pairs else WEIGHT_BOUND

    @property
    def bounds_pairs(self) -> bool:
        """Whether each channel's scale follows from its largest pair of weights, not its largest weight."""
        plain = self.has_symmetric_int8_weights and self.activation_type == "uint8" and not self.power_of_two
        return self.reduce_range and self.per_channel and plain

    @property
    def has_symmetric_int8_weights(self) -> bool:
        """Whether weights become symmetric INT8: the grid that ``grid`` knows."""
        return self.weight_type == "int8" and self.weight_symmetric

    def to_json(self) -> dict[str, Any]:
        """Return the scheme as JSON-able values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["operators"] = list(self.operators)
        return values


PROFILES: Mapping[str, QuantizationScheme] = {
    "x86-vnni": QuantizationScheme(),
    "x86": QuantizationScheme(reduce_range=True),
    "arm": QuantizationScheme(activation_type="int8"),
    "tensorrt": QuantizationScheme(
        activation_type="int8",
        activation_symmetric=True,
        operators=(
            "Conv",
            "ConvTranspose",
            "Gemm",
            "MatMul",
            "Add",
            "MaxPool",
            "AveragePool",
            "GlobalAveragePool",
        ),
        float16="inside",
    ),
    "vx-delegate": QuantizationScheme(activation_type="int8", per_channel=False),
    "tidl-mma1": QuantizationScheme(
        activation_type="int8", activation_symmetric=True, per_channel=False, power_of_two=True
    ),
}
"""Schemes by the name of a quantization profile.

x86 with VNNI multiplies U8 by S8 without saturation; S8S8 falls back to float kernels there. Without VNNI the
same kernels saturate at 16 bits, so pairs of weights keep below that. Arm's dot-product instructions take S8
by S8. TensorRT refuses zero points other than 0; the VX delegate's NPU wants one scale per tensor. The first
generation of TI's matrix multiplication accelerator shifts: one scale per tensor, a power of two.
"""


def scheme_for(profile: str | Mapping[str, Any]) -> QuantizationScheme:
    """Return the scheme of a profile's name, or of a board's own profile spelled out as a mapping.

    Raises:
        QuantizationFailed: SCHEME_UNKNOWN.
    """
    if isinstance(profile, str):
        scheme = PROFILES.get(profile)
        if scheme is None:
            raise QuantizationFailed(
                "SCHEME_UNKNOWN",
                f"There is no quantization profile {profile!r}; the profiles are "
                f"{', '.join(sorted(PROFILES))}.",
            )
        return scheme
    known = {field.name for field in fields(QuantizationScheme)}
    unknown = sorted(set(profile) - known)
    if unknown:
        raise QuantizationFailed(
            "SCHEME_UNKNOWN",
            f"A quantization profile has no {unknown[0]!r}; it has {', '.join(sorted(known))}.",
        )
    values = dict(profile)
    if "operators" in values:
        values["operators"] = tuple(values["operators"])
    return QuantizationScheme(**values)


def with_granularity(scheme: QuantizationScheme, granularity: str) -> QuantizationScheme:
    """Return the scheme with weight scales ``per-channel`` or ``per-tensor``; ``profile`` leaves them."""
    if granularity == "profile":
        return scheme
    return replace(scheme, per_channel=granularity == "per-channel")
