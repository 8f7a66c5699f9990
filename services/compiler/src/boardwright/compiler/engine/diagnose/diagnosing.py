"""One graph beside its baseline: what ran, how fast, how exact, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.diagnose.errors import TensorError, tensor_errors
from boardwright.compiler.engine.diagnose.findings import (
    Finding,
    quality_findings,
    speed_findings,
    verdict,
)
from boardwright.compiler.engine.diagnose.kernels import KernelReport, report_kernels
from boardwright.compiler.engine.diagnose.timing import Latency, measure_both
from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.profiling import RuntimeProfile, profile_runtime

if TYPE_CHECKING:
    import onnx

Cause = Callable[[], Mapping[str, str] | None]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The evidence, the findings with the gravest first, and the verdict in a sentence.

    ``latencies`` are (baseline, variant) by number of threads, 0 for the runtime's default. ``host`` says
    where they were measured.
    """

    kernels: KernelReport
    profile: RuntimeProfile
    latencies: Mapping[int, tuple[Latency, Latency]]
    errors: tuple[TensorError, ...]
    findings: tuple[Finding, ...]
    verdict: str

    @property
    def next_step(self) -> str:
        """The first thing to try."""
        return self.findings[0].advice if self.findings else "Nothing: it is as it should be."

    def describe(self) -> dict[str, Any]:
        """Return the diagnosis as JSON-able values."""
        return {
            "verdict": self.verdict,
            "next": self.next_step,
            "findings": [finding.describe() for finding in self.findings],
            "kernels": self.kernels.describe(),
            "operators_ms": self.profile.by_operator(),
            "latency": [
                {"baseline": before.describe(), "variant": after.describe()}
                for before, after in self.latencies.values()
            ],
            "tensor_sqnr_db": [
                {
                    "tensor": error.tensor,
                    "node": error.node,
                    "operator": error.operator,
                    "sqnr_db": error.sqnr_db,
                }
                for error in self.errors
            ],
        }


def diagnose(
    baseline: onnx.ModelProto,
    variant: onnx.ModelProto,
    feeds: Sequence[Feed],
    *,
    arithmetic: str,
    runs: int = 30,
    lost: str = "",
    cause: Cause | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Compare ``variant`` with ``baseline``.

    ``feeds`` are a few preprocessed samples. ``arithmetic`` is this CPU's (``x86_64 vnni``, ``aarch64``).
    ``lost`` says what information is gone. ``cause`` is asked for the cause where the outputs differ much.

    Raises:
        EngineError: RUNTIME_REFUSED.
    """
    on_stage("looking at the kernels")
    kernels = report_kernels(variant)
    profile = profile_runtime(variant, feeds[0], runs=max(3, runs // 3))
    on_stage("measuring both in turns")
    latencies = {
        threads: measure_both(baseline, variant, feeds[0], threads=threads, runs=runs) for threads in (1, 0)
    }
    on_stage("comparing tensors")
    errors = tensor_errors(baseline, variant, feeds)
    quality = quality_findings(errors, lost, None)
    if quality and cause is not None:
        on_stage("looking for the cause")
        quality = quality_findings(errors, lost, cause())
    speed = speed_findings(kernels, profile, latencies, arithmetic)
    findings = sorted([*quality, *speed], key=lambda finding: -finding.weight)
    return Diagnosis(
        kernels, profile, latencies, errors, tuple(findings), verdict(latencies, findings, bool(quality))
    )
