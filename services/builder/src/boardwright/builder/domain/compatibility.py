"""Will this graph run on that board, where, and with which arithmetic: told before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from boardwright.builder.domain.boards import Board, OperatorSupport, QuantizationProfile, Runtime

KernelRanges = Mapping[tuple[str, str], tuple[tuple[int, int], ...]]
"""(domain, operator) to the opset versions a runtime has kernels for."""

_LETTERS = {"uint8": "U8", "int8": "S8"}


class Placement(StrEnum):
    """Where an operator runs."""

    ACCELERATOR = "accelerator"
    CPU = "cpu"
    CPU_FALLBACK = "cpu-fallback"
    """The board has an accelerator, but this operator does not get there."""
    UNSUPPORTED = "unsupported"


class UsedOperator(Protocol):
    """An operator of the graph (``boardwright.toolchains.graph.OperatorUse``)."""

    @property
    def domain(self) -> str: ...
    @property
    def operator(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...


class UsedPrecision(Protocol):
    """How the graph is quantized (``boardwright.toolchains.precision.Precision``)."""

    @property
    def activation_types(self) -> tuple[str, ...]: ...
    @property
    def weight_types(self) -> tuple[str, ...]: ...
    @property
    def asymmetric_activations(self) -> bool: ...
    @property
    def asymmetric_weights(self) -> bool: ...
    @property
    def per_channel(self) -> bool: ...
    @property
    def is_integer(self) -> bool: ...
    @property
    def short(self) -> str: ...
    @property
    def dynamic(self) -> bool: ...
    @property
    def other_scales(self) -> bool: ...
    @property
    def float16(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class OperatorReport:
    """One operator of the graph: how often, which nodes (the first few), where it runs, and what to mind."""

    operator: str
    domain: str
    count: int
    nodes: tuple[str, ...]
    placement: Placement
    note: str = ""


@dataclass(frozen=True, slots=True)
class CompatibilityReport:
    """What a build for a board will meet.

    ``refusals`` are sentences that make a build pointless; ``warnings`` cost speed or accuracy.
    """

    board: str
    runtime: str
    runs_on: str
    precision: str
    operators: tuple[OperatorReport, ...]
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def supported(self) -> bool:
        return not self.refusals

    def placed(self, placement: Placement) -> tuple[OperatorReport, ...]:
        """Return the operators that run there."""
        return tuple(report for report in self.operators if report.placement is placement)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {
            "schema": "compatibility-report/1",
            "board": self.board,
            "runtime": self.runtime,
            "runs_on": self.runs_on,
            "precision": self.precision,
            "supported": self.supported,
            "refusals": list(self.refusals),
            "warnings": list(self.warnings),
            "operators": [
                {
                    "operator": report.operator,
                    "domain": report.domain,
                    "count": report.count,
                    "nodes": list(report.nodes),
                    "placement": report.placement.value,
                    "note": report.note,
                }
                for report in self.operators
            ],
        }


def check_compatibility(
    board: Board,
    runtime: Runtime,
    operators: tuple[UsedOperator, ...],
    precision: UsedPrecision,
    kernels: KernelRanges | None = None,
) -> CompatibilityReport:
    """Judge a graph against a board's runtime.

    ``kernels`` is the installed runtime's own answer, where the support table says to ask it; without it
    such a runtime is taken to support everything, and the load decides.
    """
    reports = tuple(_place(use, runtime, kernels) for use in operators)
    refusals = [
        f"{runtime.title} on {board.title} has no kernel for {report.operator}"
        f"{f' of {report.domain}' if report.domain else ''} ({_nodes(report)}): {report.note}"
        for report in reports
        if report.placement is Placement.UNSUPPORTED
    ]
    warnings = [
        f"{report.operator} ({_nodes(report)}) does not run on the {runtime.runs_on} but on the CPU: "
        f"{report.note}"
        for report in reports
        if report.placement is Placement.CPU_FALLBACK
    ]
    hard, soft = judge_precision(precision, runtime.quantization_profile)
    return CompatibilityReport(
        board=board.name,
        runtime=runtime.name,
        runs_on=runtime.runs_on,
        precision=precision.short,
        operators=reports,
        refusals=(*refusals, *hard),
        warnings=(*warnings, *soft),
    )


def _nodes(report: OperatorReport) -> str:
    shown = ", ".join(node for node in report.nodes if node)
    more = report.count - len(report.nodes)
    return f"{shown or f'{report.count} times'}{f' and {more} more' if more > 0 else ''}"


def _place(use: UsedOperator, runtime: Runtime, kernels: KernelRanges | None) -> OperatorReport:
    support = runtime.operator_support
    taken, note = _asked(use, kernels) if support.ask_runtime else _listed(use, support, runtime.title)
    on_cpu = runtime.runs_on == "cpu"
    if taken:
        placement = Placement.CPU if on_cpu else Placement.ACCELERATOR
    elif support.fallback and not on_cpu:
        placement = Placement.CPU_FALLBACK
    else:
        placement = Placement.UNSUPPORTED
    return OperatorReport(use.operator, use.domain, use.count, use.nodes, placement, note)


def _asked(use: UsedOperator, kernels: KernelRanges | None) -> tuple[bool, str]:
    if kernels is None:
        return True, ""
    ranges = kernels.get((use.domain, use.operator), ())
    if any(low <= use.version <= high for low, high in ranges):
        return True, ""
    if not ranges:
        # ONNX defines many operators as functions of others; the runtime expands those at load.
        return _is_function(use.domain), "no kernel of its own is registered; the load decides"
    newest = max(high for _, high in ranges)
    return False, f"it has kernels up to opset {newest}, the graph asks for opset {use.version}"


def _is_function(domain: str) -> bool:
    return domain == ""


def _listed(use: UsedOperator, support: OperatorSupport, title: str) -> tuple[bool, str]:
    if use.domain:
        return False, f"{title} knows no operators of the domain {use.domain}"
    if support.highest_opset and use.version > support.highest_opset:
        return False, f"opset {use.version} is beyond the {support.highest_opset} that it reads"
    if support.lowest_opset and use.version < support.lowest_opset:
        return False, f"opset {use.version} is below the {support.lowest_opset} that it reads"
    if use.operator not in support.operators:
        return False, f"it is not among the operators of {support.title}"
    return True, (support.restrictions or {}).get(use.operator, "")


def profiles_clash(made_for: QuantizationProfile, wanted: QuantizationProfile) -> str:
    """Return why a variant made for one profile cannot be built for another; empty where it can.

    Told from the profiles' names alone, before a worker has looked at the graph. What merely costs speed
    is left to the compatibility report.
    """
    if made_for.name == wanted.name:
        return ""
    if wanted.format == "litert-full-integer":
        return f"{wanted.title} quantizes while converting from the float graph; build the baseline variant."
    if wanted.activation_symmetric and not made_for.activation_symmetric:
        return f"{wanted.title} takes zero point 0 only; quantize with the profile {wanted.name}."
    if wanted.weight_symmetric and not made_for.weight_symmetric:
        return f"{wanted.title} takes symmetric weights only; quantize with the profile {wanted.name}."
    if wanted.power_of_two and not made_for.power_of_two:
        return f"{wanted.title} takes powers of two as scales; quantize with the profile {wanted.name}."
    return ""


def judge_precision(
    precision: UsedPrecision, profile: QuantizationProfile
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare how a graph is quantized with what the board's kernels like: refusals, then warnings.

    A float graph meets every profile.
    """
    if precision.float16 and profile.float16 == "none":
        return (), (
            f"The graph is in float16, and no kernel of {profile.title} gets faster by that. Build the "
            f"baseline, or quantize with the profile {profile.name}.",
        )
    if not precision.is_integer:
        return (), ()
    refusals, warnings = [], []
    wants = f"{_LETTERS[profile.activation_type]}{_LETTERS[profile.weight_type]}"
    if profile.format == "litert-full-integer":
        refusals.append(
            f"{profile.title} quantizes while converting from the float graph; build the baseline variant "
            f"instead of this {precision.short} one."
        )
        return tuple(refusals), ()
    if precision.dynamic:
        warnings.append(
            "The graph quantizes activations at run time (dynamic quantization), which is slower than float "
            "for convolutions. Use static quantization with calibration samples."
        )
    if profile.activation_symmetric and precision.asymmetric_activations:
        refusals.append(
            f"{profile.title} takes zero point 0 only, and some activations of this {precision.short} graph "
            f"have another. Quantize with the profile {profile.name}."
        )
    if profile.weight_symmetric and precision.asymmetric_weights:
        refusals.append(
            f"{profile.title} takes symmetric weights only. Quantize with the profile {profile.name}."
        )
    if profile.power_of_two and precision.other_scales:
        refusals.append(
            f"{profile.title} takes powers of two as scales, and some of this {precision.short} graph are "
            f"none. Quantize with the profile {profile.name}."
        )
    others = sorted({*precision.activation_types} - {profile.activation_type})
    if others:
        warnings.append(
            f"Activations are {' and '.join(others)}; the board's kernels are made for {wants}. The runtime "
            f"converts or falls back to float. Quantize with the profile {profile.name}."
        )
    if precision.per_channel and not profile.per_channel:
        warnings.append(f"Weights have a scale per channel; {profile.title} is faster with one per tensor.")
    if not precision.per_channel and profile.per_channel and precision.weight_types:
        warnings.append(
            "Weights have one scale per tensor; the board's kernels take one per channel at no cost, which "
            "loses less accuracy."
        )
    return tuple(refusals), tuple(warnings)
