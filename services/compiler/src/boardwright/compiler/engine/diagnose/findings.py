"""From evidence to sentences: why a variant is slower or worse here, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from boardwright.compiler.engine.diagnose.errors import TensorError, steepest_fall
from boardwright.compiler.engine.diagnose.kernels import KernelReport
from boardwright.compiler.engine.diagnose.timing import Latency
from boardwright.compiler.engine.profiling import RuntimeProfile

# What is worth a sentence: chosen by judgement. Nothing is computed with these; they decide what is said.
_NOISY_CV = 0.2
_LOUD_CONVERSIONS = 0.1
_GOOD_OUTPUT_DB = 15.0
_STEEP_DB = 12.0
_SAME_SPEED = 0.03
_SLOWER_WITH_THREADS = 1.1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. ``weight`` orders findings: the larger, the more it explains.

    ``about`` is ``speed``, ``quality`` or ``measurement``.
    """

    rule: str
    about: str
    weight: float
    sentence: str
    advice: str

    def describe(self) -> dict[str, Any]:
        """Return the finding as JSON-able values."""
        return asdict(self)


def speed_findings(
    kernels: KernelReport,
    profile: RuntimeProfile,
    latencies: Mapping[int, tuple[Latency, Latency]],
    arithmetic: str,
) -> list[Finding]:
    """Return why the variant takes its time here. ``latencies`` are (baseline, variant) by threads."""
    share = _shares(profile)
    found = [
        _dynamic_ranges(kernels, share) or _float_layers(kernels, arithmetic),
        _loud_conversions(kernels, share),
        _no_vnni() if arithmetic == "x86_64" else None,
        _noise(latencies),
        _threads(latencies),
    ]
    return [finding for finding in found if finding is not None]


def _dynamic_ranges(kernels: KernelReport, share: Mapping[str, float]) -> Finding | None:
    dynamic = kernels.count("DynamicQuantizeLinear")
    if not dynamic:
        return None
    looking, multiplying = share.get("DynamicQuantizeLinear", 0.0), share.get("ConvInteger", 0.0)
    return Finding(
        "dynamic",
        "speed",
        2.0 + looking + multiplying,
        f"{dynamic} DynamicQuantizeLinear run in every pass ({looking:.0%} of the time) and "
        f"{multiplying:.0%} goes into ConvInteger, which no CPU fuses with what follows: ranges are looked "
        "for while the model runs.",
        "Quantize statically: ranges then come from calibration samples (recipe default).",
    )


def _float_layers(kernels: KernelReport, arithmetic: str) -> Finding | None:
    if not kernels.activation_type or not kernels.float_layers:
        return None
    floats, layers = len(kernels.float_layers), len(kernels.integer_layers) + len(kernels.float_layers)
    if kernels.activation_type == "int8" and arithmetic.startswith("x86"):
        why = "int8 activations with int8 weights have no convolution kernel on x86"
        advice = (
            "Compile for a board with the profile x86-vnni (uint8 activations); int8 activations are Arm's."
        )
    else:
        why = "their Quantize and Dequantize nodes do not fit a pattern that has an integer kernel"
        advice = "Look at the exclusions in quantization.json: what was left out runs on floats on purpose."
    return Finding(
        "float-layers",
        "speed",
        1.0 + floats / layers,
        f"{floats} of {layers} layers run on floats although the graph is quantized "
        f"({_examples(kernels.float_layers)}): {why}.",
        advice,
    )


def _loud_conversions(kernels: KernelReport, share: Mapping[str, float]) -> Finding | None:
    converting = share.get("QuantizeLinear", 0.0) + share.get("DequantizeLinear", 0.0)
    if converting <= _LOUD_CONVERSIONS:
        return None
    places = ", ".join(sorted({f"{one.after} → {one.before}" for one in kernels.splits})[:4])
    return Finding(
        "conversions",
        "speed",
        0.5 + converting,
        f"{converting:.0%} of the time goes into {len(kernels.conversions)} conversions between integers and "
        f"floats; {len(kernels.splits)} of them split the graph in its middle ({places or 'at its ends'}).",
        "Quantize what lies between two conversions as well, or leave the short integer pieces in floats "
        "(exclude).",
    )


def _no_vnni() -> Finding:
    return Finding(
        "no-vnni",
        "speed",
        0.4,
        "This CPU has no VNNI: it multiplies 8-bit integers in three instructions, not one, and INT8 gains "
        "less here than it could.",
        "Measure on the board that the variant is for.",
    )


def _noise(latencies: Mapping[int, tuple[Latency, Latency]]) -> Finding | None:
    noisy = max((latency.cv for pair in latencies.values() for latency in pair), default=0.0)
    if noisy <= _NOISY_CV:
        return None
    return Finding(
        "noise",
        "measurement",
        0.3,
        f"Latencies vary by {noisy:.0%} around their mean: other work runs on this machine.",
        "Judge by the medians, and measure again on an idle machine.",
    )


def _threads(latencies: Mapping[int, tuple[Latency, Latency]]) -> Finding | None:
    if 1 not in latencies or 0 not in latencies:
        return None
    single, default = latencies[1][1].p50_ms, latencies[0][1].p50_ms
    if default <= _SLOWER_WITH_THREADS * single:
        return None
    return Finding(
        "threads",
        "speed",
        0.6,
        f"With the runtime's default threads the variant takes {default:.1f} ms, with one {single:.1f} ms: "
        "its layers are too small to share, or the cores are busy.",
        "Run it with one thread.",
    )


def quality_findings(
    errors: tuple[TensorError, ...], lost: str, cause: Mapping[str, str] | None
) -> list[Finding]:
    """Return why the variant answers differently. ``lost`` says that information is gone, "" if it is not.

    ``cause`` is what a closer search named: ``sentence`` and ``advice``.
    """
    found = []
    outputs = [error.sqnr_db for error in errors if error.is_output]
    worst = min(outputs, default=_GOOD_OUTPUT_DB)
    if lost:
        found.append(
            Finding(
                "information-lost", "quality", 4.0, lost, "Do not deploy this variant; see the next finding."
            )
        )
    if cause is not None:
        found.append(Finding("cause", "quality", 4.5, cause["sentence"], cause["advice"]))
    fall = steepest_fall(errors)
    if fall is not None and fall[1] > _STEEP_DB and worst < _GOOD_OUTPUT_DB:
        error, decibels = fall
        found.append(
            Finding(
                "steepest-fall",
                "quality",
                2.5,
                f"At {error.operator} {error.node!r} the error grows by {decibels:.0f} dB at once, to "
                f"{error.sqnr_db:.0f} dB of signal over error; the outputs are left with {worst:.0f} dB.",
                f"Leave it in floating point (exclude: [{error.node}]), or let protect find what belongs to "
                "it.",
            )
        )
    elif worst < _GOOD_OUTPUT_DB:
        found.append(
            Finding(
                "spread-error",
                "quality",
                2.0,
                f"The error grows little by little to {worst:.0f} dB at the outputs: no single layer is to "
                "blame.",
                "Use more calibration samples, the recover pass, or train-quantized.",
            )
        )
    return found


def verdict(latencies: Mapping[int, tuple[Latency, Latency]], findings: list[Finding], differs: bool) -> str:
    """Return one sentence: slower or faster, worse or as good, and the first reason for it."""
    parts = []
    if 1 in latencies:
        before, after = latencies[1]
        ratio = after.p50_ms / before.p50_ms
        word = (
            "faster than"
            if ratio < 1 - _SAME_SPEED
            else "slower than"
            if ratio > 1 + _SAME_SPEED
            else "as fast as"
        )
        parts.append(
            f"{word} FP32 here ({after.p50_ms:.2f} against {before.p50_ms:.2f} ms with one thread, "
            f"{ratio:.2f} ×)"
        )
    parts.append("its answers differ" if differs else "its answers are close to FP32's")
    reason = f" First of all: {findings[0].sentence}" if findings else ""
    return f"The variant is {', and '.join(parts)}.{reason}"


def _shares(profile: RuntimeProfile) -> dict[str, float]:
    totals = profile.by_operator()
    whole = sum(totals.values()) or 1.0
    return {operator: taken / whole for operator, taken in totals.items()}


def _examples(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + ("…" if len(names) > 3 else "")
