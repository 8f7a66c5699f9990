"""Mixed precision under a budget: which layers return to floating point so that a loss or a latency is kept.

Layers are taken in the order of noise removed per latency added (greedy knapsack), in numbers that double,
until the measured loss is within the budget; then bisection takes back what was too much. Every step is a
real quantized model on real samples; nothing is promised from an estimate. It stops at the first that fits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.protect.exclusion import Exclusion, excluded_names
from boardwright.compiler.engine.protect.latency import LatencyModel
from boardwright.compiler.engine.protect.sensitivity import Sensitivity
from boardwright.compiler.engine.protect.structure import Subject, with_followers
from boardwright.compiler.engine.sqnr import noise_to_signal

if TYPE_CHECKING:
    import onnx

_EVERY_LAYER_COSTS = 1e-3


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be lost, in points of the task metric, and what the result may take. None leaves it open."""

    max_drop: float | None = None
    max_latency_ms: float | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether nothing is asked."""
        return self.max_drop is None and self.max_latency_ms is None


@dataclass(frozen=True, slots=True)
class Trial:
    """A quantized model that was measured: how many blocks it kept in float, its loss, its predicted cost."""

    blocks: int
    drop: float
    cost: float


@dataclass(frozen=True, slots=True)
class Verification:
    """What the choice loses on samples that it was not made by, in points of ``metric``."""

    metric: str
    drop: float

    def told(self, max_drop: float) -> str:
        """Return a sentence."""
        beyond = f", more than {max_drop:g}" if self.drop > max_drop else ""
        return f"On other samples it loses {self.drop:.2f} points of {self.metric}{beyond}."


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """What was chosen and why. ``exclusion`` is None where nothing more stays in floating point.

    ``trials`` and ``reached`` are of the samples that the choice was made by; ``verified`` of others, which
    alone are free of the choice's luck.
    """

    budget: Budget
    reached: bool
    explanation: str
    exclusion: Exclusion | None
    trials: tuple[Trial, ...]
    metric: str
    latency_basis: str
    latency_unit: str
    cpu_seconds: float
    verified: Verification | None = None

    @property
    def kept_on_others(self) -> bool:
        """Tell whether the loss on other samples is within the budget too, as far as it was measured."""
        limit = self.budget.max_drop
        return self.verified is None or limit is None or self.verified.drop <= limit

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able values; trials are in the order in which they were measured."""
        return {
            "max_drop": self.budget.max_drop,
            "max_latency_ms": self.budget.max_latency_ms,
            "reached": self.reached,
            "explanation": self.explanation,
            "kept_in_float": list(self.exclusion.nodes) if self.exclusion else [],
            "metric": self.metric,
            "latency_basis": self.latency_basis,
            "latency_unit": self.latency_unit,
            "verified": {"metric": self.verified.metric, "drop": round(self.verified.drop, 4)}
            if self.verified
            else {},
            "trials": [
                {"blocks": trial.blocks, "drop": round(trial.drop, 4), "cost": round(trial.cost, 4)}
                for trial in self.trials
            ],
        }


@dataclass(frozen=True, slots=True)
class Block:
    """A layer with what runs on its output alone, and the noise it adds at the outputs."""

    layer: str
    nodes: tuple[str, ...]
    noise: float


def fit_budget(
    subject: Subject,
    sensitivity: Sensitivity,
    exclusions: Sequence[Exclusion],
    budget: Budget,
    latency: LatencyModel,
    *,
    build: Callable[[set[str]], onnx.ModelProto],
    drop: Callable[[onnx.ModelProto], float],
    metric: str,
    max_trials: int = 8,
    on_trial: Callable[[int], None] = lambda _: None,
) -> BudgetResult:
    """Choose which blocks to keep in floating point besides ``exclusions``, and verify the choice.

    At least one layer stays on integers: a model that is not quantized keeps every budget and helps nobody.
    ``build`` quantizes the graph without the named nodes; ``drop`` measures what such a model loses, in
    points of ``metric``. At most ``max_trials`` models are measured.
    """
    started = time.process_time()
    fixed = excluded_names(exclusions)
    blocks = rank_blocks(subject, sensitivity, fixed, latency)
    affordable = _affordable(blocks, fixed, budget, latency)
    if len(affordable) == len(blocks):
        affordable = affordable[:-1]
    search = _Search(fixed, affordable, latency, build, drop, max_trials, on_trial)
    start = latency.total(fixed)
    if budget.max_latency_ms is not None and latency.unit == "ms" and start > budget.max_latency_ms:
        explanation = (
            f"With every other layer on integers the model takes {start:.3g} ms by {latency.basis}, more "
            f"than the {budget.max_latency_ms:g} ms asked for: no choice of layers reaches that. Prune it "
            "or give it a smaller input."
        )
        return search.result(budget, metric, explanation, count=None, reached=False, started=started)
    if budget.max_drop is None:
        count = len(affordable)
        explanation = _filled(count, budget, latency)
        return search.result(
            budget, metric, explanation, count=count, reached=latency.unit == "ms", started=started
        )
    enough = search.smallest_within(budget.max_drop)
    if enough is not None:
        explanation = _kept(search, enough, budget.max_drop, metric, affordable, latency)
        return search.result(budget, metric, explanation, count=enough, reached=True, started=started)
    best = min(search.trials, key=lambda trial: (trial.drop, trial.blocks))
    explanation = _missed(best, budget, metric, len(blocks), len(affordable))
    return search.result(budget, metric, explanation, count=best.blocks, reached=False, started=started)


def rank_blocks(
    subject: Subject, sensitivity: Sensitivity, excluded: Collection[str], latency: LatencyModel
) -> list[Block]:
    """Return the blocks whose nodes are still on integers, most noise per latency first."""
    noise = {unit.node: noise_to_signal(unit.sqnr_db) for unit in sensitivity.units}
    blocks = []
    for index in sorted(subject.layers):
        name = subject.nodes[index].name
        if name in excluded or not subject.may_be_integer(index):
            continue
        members = sorted(with_followers(subject, index))
        names = tuple(
            subject.nodes[member].name for member in members if subject.nodes[member].name not in excluded
        )
        blocks.append(Block(name, names, sum(noise.get(member, 0.0) for member in names)))
    floor = _EVERY_LAYER_COSTS * max(latency.total(subject.names(range(len(subject.nodes)))), 1e-12)
    return sorted(blocks, key=lambda block: -block.noise / (latency.surcharge(block.layer) + floor))


class _Search:
    """Measures how much is lost with the first so many blocks in floating point; remembers what it knows."""

    def __init__(
        self,
        fixed: set[str],
        blocks: Sequence[Block],
        latency: LatencyModel,
        build: Callable[[set[str]], onnx.ModelProto],
        drop: Callable[[onnx.ModelProto], float],
        max_trials: int,
        on_trial: Callable[[int], None],
    ) -> None:
        self._fixed, self._blocks, self._latency = fixed, blocks, latency
        self._build, self._drop = build, drop
        self._max_trials, self._on_trial = max_trials, on_trial
        self.trials: list[Trial] = []

    def names(self, count: int) -> set[str]:
        return {name for block in self._blocks[:count] for name in block.nodes}

    def measure(self, count: int) -> Trial:
        excluded = self._fixed | self.names(count)
        trial = Trial(count, self._drop(self._build(excluded)), self._latency.total(excluded))
        self.trials.append(trial)
        self._on_trial(len(self.trials))
        return trial

    def smallest_within(self, max_drop: float) -> int | None:
        """Return the smallest number of blocks found whose loss is within the budget, else None."""
        failed, count = -1, 0
        while self.measure(count).drop > max_drop:
            failed = count
            if count >= len(self._blocks) or len(self.trials) >= self._max_trials:
                return None
            count = min(max(1, 2 * count), len(self._blocks))
        while count - failed > 1 and len(self.trials) < self._max_trials:
            middle = (failed + count) // 2
            if self.measure(middle).drop <= max_drop:
                count = middle
            else:
                failed = middle
        return count

    def result(
        self,
        budget: Budget,
        metric: str,
        explanation: str,
        *,
        count: int | None,
        reached: bool,
        started: float,
    ) -> BudgetResult:
        names = self.names(count or 0)
        exclusion = None
        if names:
            layers = ", ".join(repr(block.layer) for block in self._blocks[: min(count or 0, 3)])
            more = f" and {count - 3} more" if count and count > 3 else ""
            exclusion = Exclusion("budget", tuple(sorted(names)), f"{explanation} They are {layers}{more}.")
        return BudgetResult(
            budget,
            reached,
            explanation,
            exclusion,
            tuple(self.trials),
            metric,
            self._latency.basis,
            self._latency.unit,
            time.process_time() - started,
        )


def _affordable(
    blocks: Sequence[Block], fixed: set[str], budget: Budget, latency: LatencyModel
) -> list[Block]:
    """Return the blocks that fit into the latency together, in their order; all where none is asked."""
    if budget.max_latency_ms is None or latency.unit != "ms":
        return list(blocks)
    left = budget.max_latency_ms - latency.total(fixed)
    chosen = []
    for block in blocks:
        if latency.surcharge(block.layer) <= left:
            chosen.append(block)
            left -= latency.surcharge(block.layer)
    return chosen


def _filled(count: int, budget: Budget, latency: LatencyModel) -> str:
    if latency.unit != "ms":
        return (
            f"Milliseconds cannot be told from {latency.basis}: give per-layer times of the board "
            f"(pass profile) to keep {budget.max_latency_ms} ms."
        )
    return (
        f"The {count} most sensitive layers that fit into {budget.max_latency_ms:g} ms by {latency.basis} "
        "stay in floating point."
    )


def _kept(
    search: _Search,
    count: int,
    max_drop: float,
    metric: str,
    affordable: Sequence[Block],
    latency: LatencyModel,
) -> str:
    drop = next(trial.drop for trial in reversed(search.trials) if trial.blocks == count)
    if not count:
        return (
            f"The measured loss of {drop:.2f} points of {metric} is within {max_drop:g}: no layer is needed."
        )
    extra = sum(latency.surcharge(block.layer) for block in affordable[:count])
    return (
        f"{count} sensitive layers stay in floating point, so that the measured loss of {drop:.2f} points of "
        f"{metric} is within {max_drop:g}; they add {extra:.3g} {latency.unit} ({latency.basis})."
    )


def _missed(best: Trial, budget: Budget, metric: str, blocks: int, affordable: int) -> str:
    bound = ""
    if budget.max_latency_ms is not None and affordable < blocks - 1:
        bound = f" {blocks - affordable} further layers would exceed {budget.max_latency_ms} ms."
    elif best.blocks >= affordable:
        bound = f" Of {blocks} layers no more can stay there: a model is left that is hardly quantized."
    return (
        f"{budget.max_drop:g} points of {metric} were not reached: the best measured is {best.drop:.2f} with "
        f"{best.blocks} layers in floating point.{bound} Try recover (bias correction, learned rounding), "
        "more calibration samples, or train-quantized."
    )
