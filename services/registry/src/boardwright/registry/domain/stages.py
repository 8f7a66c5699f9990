"""The ladder of a model: what makes one, and how a stage moves.

A stage is a stack of promotions: promoting pushes, rolling back pops. So rolling back twice goes back two
releases, whatever lies between, and a release that was rolled back is not come upon again by rolling back.
A release that is promoted to where it stands takes its own place: rolling back always leads to another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from boardwright.registry.domain.gates import METRICS, STATISTICS
from boardwright.registry.domain.resources import AccuracyDrop, Gate, Promotion, Stage, Verdict


@dataclass(frozen=True, slots=True)
class Move:
    """A stage after a change, and the record of the change."""

    stage: Stage
    promotion: Promotion


def ladder_fault(stages: Sequence[str], gates: Sequence[Gate]) -> str:
    """What is wrong with a ladder and its gates, as one sentence; "" when nothing is."""
    if not stages:
        return "a model needs at least one stage"
    for stage in stages:
        if list(stages).count(stage) > 1:
            return f"stage {stage} is named twice"
    for gate in gates:
        if gate.stage not in stages:
            return f"a gate guards stage {gate.stage!r}, which is not on the ladder ({', '.join(stages)})"
        fault = _rule_fault(gate)
        if fault:
            return f"the gate of stage {gate.stage}: {fault}"
    return ""


def _rule_fault(gate: Gate) -> str:
    rule = gate.rule
    if isinstance(rule, AccuracyDrop):
        if rule.metric not in METRICS:
            return f"metric {rule.metric!r} is none of {', '.join(METRICS)}"
        if not math.isfinite(rule.max_drop_points) or rule.max_drop_points < 0:
            return "max_drop_points must be a number of 0 or more"
        return ""
    if not rule.board:
        return "a latency ceiling needs a board"
    if rule.statistic not in STATISTICS:
        return f"statistic {rule.statistic!r} is none of {', '.join(STATISTICS)}"
    if not math.isfinite(rule.max_ms) or rule.max_ms <= 0:
        return "max_ms must be a number above 0"
    if rule.threads < 0:
        return "threads must be 0 (the runtime's default) or more"
    return ""


def promote(
    stage: Stage,
    release: int,
    number: int,
    *,
    reason: str,
    verdicts: tuple[Verdict, ...],
    actor: str,
    now_us: int,
    standing: Promotion | None = None,
) -> Move:
    """Put `release` on `stage` as promotion `number`.

    Args:
        standing: the promotion that the stage rests on; needed where it is this release's own.
    """
    base = standing.base if standing is not None and standing.release == release else stage.promotion
    record = Promotion(
        stage.key, number, "promote", stage.stage, release, stage.release, base, reason, verdicts, actor,
        now_us,
    )  # fmt: skip
    moved = replace(stage, release=release, promotion=number, revision=stage.revision + 1, update_us=now_us)
    return Move(moved, record)


def roll_back(stage: Stage, to: Promotion, number: int, *, reason: str, actor: str, now_us: int) -> Move:
    """Return `stage` to what promotion `to`, its current one's base, had put there."""
    record = Promotion(
        stage.key,
        number,
        "roll_back",
        stage.stage,
        to.release,
        stage.release,
        to.base,
        reason,
        (),
        actor,
        now_us,
    )
    moved = replace(
        stage, release=to.release, promotion=to.number, revision=stage.revision + 1, update_us=now_us
    )
    return Move(moved, record)
