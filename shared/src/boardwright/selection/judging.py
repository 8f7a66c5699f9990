"""One candidate on one board against one set of constraints, with the reason in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from boardwright.selection.candidates import Attempt, Figures
from boardwright.selection.constraints import Constraints

_METRICS = {"top1": "top-1", "top5": "top-5", "map50_95": "mAP50-95", "map50": "mAP50"}


class Verdict(StrEnum):
    """How a candidate stands to a set of constraints."""

    SATISFIES = "satisfies"
    MISSES = "misses"
    UNKNOWN = "unknown"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A candidate's verdict. ``excess`` adds up by what part of each bound it is over; 0 where it is not."""

    candidate: str
    verdict: Verdict
    reason: str
    excess: float = 0.0


@dataclass(frozen=True, slots=True)
class _Check:
    """One bound: ``value`` is None where it is not known, for the reason ``told``."""

    bound: float
    value: float | None
    told: str

    @property
    def over(self) -> float:
        if self.value is None or self.value <= self.bound:
            return 0.0
        return (self.value - self.bound) / max(abs(self.bound), 1e-9)


def judge(attempt: Attempt, board: str, constraints: Constraints) -> Judgement:
    """Judge what came of a candidate."""
    name = attempt.candidate.name
    failure = attempt.failed(board)
    if failure is not None:
        known = " (remembered; --retry tries it again)" if failure.known else ""
        at = f"{failure.step} failed" if failure.step else "failed"
        return Judgement(name, Verdict.FAILED, f"{at}: {failure.message} [{failure.reason}]{known}")
    figures = attempt.figures(board)
    if figures is None:
        return Judgement(name, Verdict.NOT_TRIED, attempt.skipped or "was not tried")
    checks = list(_checks(figures, board, constraints))
    broken = [check for check in checks if check.over > 0]
    if broken:
        reason = "; ".join(check.told for check in broken)
        return Judgement(name, Verdict.MISSES, reason, sum(check.over for check in broken))
    unknown = [check for check in checks if check.value is None]
    if unknown:
        return Judgement(name, Verdict.UNKNOWN, "; ".join(check.told for check in unknown))
    return Judgement(name, Verdict.SATISFIES, "; ".join(check.told for check in checks) or "nothing is asked")


def _checks(figures: Figures, board: str, asked: Constraints) -> Iterator[_Check]:
    missing = figures.missing
    if asked.max_drop_points is not None:
        yield _Check(asked.max_drop_points, _rounded(figures.drop_points), _drop_told(figures, asked))
    if asked.max_latency_ms is not None:
        threads = "1 thread" if asked.threads == 1 else "default threads"
        what = f"{asked.statistic} ({threads}) on {board}"
        value = figures.latency_ms(asked.statistic, asked.threads)
        yield _bounded(asked.max_latency_ms, value, what, "ms", missing.get("latency", ""))
    if asked.max_size_bytes is not None:
        yield _bounded(asked.max_size_bytes, figures.size_bytes, "size", "MB", missing.get("size", ""))
    if asked.max_memory_bytes is not None:
        what = f"peak memory on {board}"
        yield _bounded(asked.max_memory_bytes, figures.memory_bytes, what, "MB", missing.get("memory", ""))


def _bounded(bound: float, value: float | None, what: str, unit: str, why_missing: str) -> _Check:
    if value is None:
        return _Check(bound, None, f"{what} is not known: {why_missing or 'it was not measured'}")
    scale = 1e6 if unit == "MB" else 1.0
    over = f", over {bound / scale:g} {unit}" if value > bound else ""
    return _Check(bound, value, f"{what} {_figure(value / scale)} {unit}{over}")


def _rounded(points: float | None) -> float | None:
    """Points without the noise of binary fractions: 84.25 - 83.25 is 1 point, not a hair more."""
    return None if points is None else round(points, 9)


def _drop_told(figures: Figures, asked: Constraints) -> str:
    drop, metric = figures.drop_points, _METRICS.get(figures.metric, figures.metric)
    if drop is None or figures.accuracy is None or figures.baseline_accuracy is None:
        return f"the accuracy is not known: {figures.missing.get('accuracy', 'it was not measured')}"
    change = f"{100 * figures.baseline_accuracy:.2f} → {100 * figures.accuracy:.2f} %"
    way = "loses" if drop > 0 else "gains" if drop < 0 else "keeps"
    amount = f" {abs(drop):.2f} points of" if drop else ""
    over = f", more than {asked.max_drop_points:g}" if drop > (asked.max_drop_points or 0) + 1e-9 else ""
    return f"{way}{amount} {metric} ({change}){over}"


def _figure(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
