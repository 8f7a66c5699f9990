"""Gates: which figures a rule needs of a release, and what it says of them.

A gate never guesses: a missing measurement refuses, an emulated latency counts as missing, and the verdict
says which command makes what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from boardwright.registry.domain.resources import (
    AccuracyDrop,
    Gate,
    LatencyCeiling,
    Measurement,
    ReleaseEntry,
    Verdict,
)

BASELINE = "baseline"
METRICS = ("top1", "top5", "map50", "map50_95")
STATISTICS = ("p50", "p95", "p99", "mean")

# 0.80 - 0.79 is 0.010000000000000009 in binary: a drop of exactly the bound must pass.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a release's gates are judged by.

    `measurements`: of the version's variants and artifacts, newest first. `name`: the full resource name of
    a measurement.
    """

    entries: Sequence[ReleaseEntry]
    measurements: Sequence[Measurement]
    version: str
    name: Callable[[Measurement], str]


def judge(gate: Gate, evidence: Evidence) -> Verdict:
    """The verdict of one gate over one release."""
    if isinstance(gate.rule, AccuracyDrop):
        return _judge_accuracy(gate, gate.rule, evidence)
    return _judge_latency(gate, gate.rule, evidence)


def _judge_accuracy(gate: Gate, rule: AccuracyDrop, evidence: Evidence) -> Verdict:
    """The worst variant decides."""
    verdicts = [
        _judge_variant(gate, rule, variant, evidence)
        for variant in dict.fromkeys(entry.variant for entry in evidence.entries)
    ]
    return _worst(verdicts)


def _judge_variant(gate: Gate, rule: AccuracyDrop, variant: str, evidence: Evidence) -> Verdict:
    mine = _accuracies(rule.metric, variant, evidence)
    reference = _accuracies(rule.metric, BASELINE, evidence)
    shared = [m for m in mine if any(_comparable(m, r) for r in reference)]
    if not shared:
        missing = variant if not mine else BASELINE
        where = "" if not mine else f" on {_samples(mine[0])}, where {variant} was judged"
        return Verdict(
            gate,
            False,
            f"the {rule.metric} of variant {missing} of {evidence.version} was never measured{where}; "
            "compile the version with an `evaluate` pass over a labelled dataset version "
            "(`boardwright compile`), then promote again",
            bound=rule.max_drop_points,
        )
    figure = shared[0]
    base = next(r for r in reference if _comparable(figure, r))
    points = 100 * (base.values[rule.metric] - figure.values[rule.metric])
    passed = points <= rule.max_drop_points + _ROUNDING
    return Verdict(
        gate,
        passed,
        f"{rule.metric} of variant {variant} is {figure.values[rule.metric]:.4f}, {_points(points)} the "
        f"baseline's {base.values[rule.metric]:.4f} on {figure.dataset}; "
        f"at most {rule.max_drop_points:g} points of drop are allowed",
        evidence.name(figure),
        points,
        rule.max_drop_points,
    )


def _comparable(one: Measurement, other: Measurement) -> bool:
    """Whether two accuracies are of the same samples: of the dataset version, and of as many of them."""
    return one.dataset == other.dataset and one.values.get("samples") == other.values.get("samples")


def _samples(accuracy: Measurement) -> str:
    count = accuracy.values.get("samples")
    return f"{count:.0f} samples of {accuracy.dataset}" if count else accuracy.dataset


def _points(points: float) -> str:
    return f"{points:.2f} points below" if points >= 0 else f"{-points:.2f} points above"


def _accuracies(metric: str, variant: str, evidence: Evidence) -> list[Measurement]:
    """Accuracy figures of a variant's own graph, newest first."""
    return [
        m
        for m in evidence.measurements
        if m.kind == "accuracy"
        and m.variant == variant
        and not m.artifact
        and metric in m.values
        and m.dataset
    ]


def _judge_latency(gate: Gate, rule: LatencyCeiling, evidence: Evidence) -> Verdict:
    """The slowest of the board's artifacts decides."""
    artifacts = [e for e in evidence.entries if e.pin.board == rule.board]
    if not artifacts:
        return Verdict(
            gate,
            False,
            f"the release has no artifact for {rule.board}; build one (`boardwright build`) and make a new "
            "release with it, or change the gate",
            bound=rule.max_ms,
        )
    return _worst([_judge_artifact(gate, rule, entry, evidence) for entry in artifacts])


def _judge_artifact(gate: Gate, rule: LatencyCeiling, entry: ReleaseEntry, evidence: Evidence) -> Verdict:
    field = f"{rule.statistic}_ms"
    threads = "one thread" if rule.threads == 1 else "the runtime's default threads"
    figures = [
        m
        for m in evidence.measurements
        if m.kind == "latency"
        and (m.variant, m.artifact) == (entry.variant, entry.artifact)
        and m.board == rule.board
        and m.threads == rule.threads
        and field in m.values
    ]
    figure = next((m for m in figures if m.origin == "measured"), None)
    if figure is None:
        why = " (there is an emulated figure, which says nothing of the board)" if figures else ""
        return Verdict(
            gate,
            False,
            f"the {rule.statistic} latency of artifact {entry.artifact} with {threads} was never measured on "
            f"{rule.board}{why}; run `boardwright measure` where there is one, then promote again",
            bound=rule.max_ms,
        )
    value = figure.values[field]
    return Verdict(
        gate,
        value <= rule.max_ms + _ROUNDING,
        f"{rule.statistic} of artifact {entry.artifact} with {threads} is {value:g} ms, "
        f"measured on {rule.board}; at most {rule.max_ms:g} ms are allowed",
        evidence.name(figure),
        value,
        rule.max_ms,
    )


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    """A missing figure before any other, then the largest figure."""
    return max(verdicts, key=lambda v: (v.figure is None, v.figure or 0.0))
