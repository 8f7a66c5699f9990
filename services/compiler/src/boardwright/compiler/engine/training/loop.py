"""The training loop of every training pass: schedule, limits, and the refusal of what diverges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.training.data import Batch
from boardwright.compiler.engine.training.losses import total
from boardwright.compiler.engine.training.objectives import Objective
from boardwright.compiler.engine.training.options import TrainOptions

OnStep = Callable[[int, int, float], None]
_WATCHED = 10
"""Steps whose losses are averaged before they are compared with the first."""


class Batches(Protocol):
    """Batches by epoch; the same number gives the same batches."""

    def __len__(self) -> int:
        """Return how many batches an epoch has."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Return the batches of epoch ``number``, counted from 0."""


@dataclass(slots=True)
class TrainRecord:
    """What happened. ``stopped`` is ``finished``, ``time-limit``, ``steps`` or ``no-progress``.

    ``losses`` are means per epoch; ``terms`` the last epoch's by name.
    """

    options: TrainOptions
    steps_planned: int
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    stopped: str = "finished"
    losses: list[float] = field(default_factory=list)
    terms: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """Return the record as JSON-able values. Seconds are left out: they differ from run to run."""
        return {
            "options": self.options.to_json(),
            "steps": self.steps,
            "steps_planned": self.steps_planned,
            "samples": self.samples,
            "stopped": self.stopped,
            "losses": [_rounded(loss) for loss in self.losses],
            "terms": {name: _rounded(value) for name, value in self.terms.items()},
            "notes": list(self.notes),
        }


def train(
    network: torch.nn.Module,
    batches: Batches,
    objective: Objective,
    options: TrainOptions,
    on_step: OnStep = lambda step, steps, loss: None,
    *,
    groups: list[dict[str, Any]] | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> TrainRecord:
    """Train ``network`` in place and leave it in evaluation mode.

    ``groups`` are torch's parameter groups where some parameters learn at a rate of their own; default: all
    trainable parameters. ``after_step`` runs after each step (projections of constrained parameters).
    ``on_step(step, steps, loss)`` tells progress. Deterministic on a CPU with the same number of threads.

    Raises:
        EngineError: TRAINING_DIVERGED, with the step and the rate it happened at; TRAINING_NOTHING, when the
            network has no trainable parameter.
        DatasetUnfit: TRAINING_EMPTY.
    """
    from boardwright.compiler.engine.errors import DatasetUnfit

    if not len(batches):
        raise DatasetUnfit("TRAINING_EMPTY", "There is no sample to train with: add samples and seal again.")
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise EngineError(
            "TRAINING_NOTHING", "The graph has no trainable weights: there is nothing to train."
        )
    planned = options.epochs * len(batches)
    planned = min(planned, options.steps) if options.steps else planned
    torch.manual_seed(options.seed)
    optimizer = _optimizer(groups or [{"params": parameters}], options)
    record = TrainRecord(options, planned)
    watch = _Watch(options)
    average = _Average(network, options.average) if options.average else None
    started = time.monotonic()
    best, waited = math.inf, 0
    for epoch in range(options.epochs):
        _training_mode(network, options)
        seen: list[float] = []
        for batch in batches.epoch(epoch):
            rate = _schedule(record.steps, planned, options)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("rate_factor", 1.0)
            loss, record.terms = total(objective(network, batch))
            value = float(loss.detach())
            watch.check(value, record.steps, rate)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if options.gradient_clip:
                torch.nn.utils.clip_grad_norm_(parameters, options.gradient_clip)
            optimizer.step()
            after_step()
            if average is not None:
                average.update(network)
            seen.append(value)
            record.steps += 1
            record.samples += len(batch)
            on_step(record.steps, planned, value)
            if record.steps >= planned:
                break
            if options.time_limit_seconds and time.monotonic() - started > options.time_limit_seconds:
                record.stopped = "time-limit"
                break
        record.losses.append(sum(seen) / max(1, len(seen)))
        if record.stopped == "time-limit":
            record.notes.append(
                f"The time limit of {options.time_limit_seconds:g} s ended training after {record.steps} of "
                f"{planned} steps."
            )
            break
        if record.steps >= planned:
            break
        waited = 0 if record.losses[-1] < best * 0.999 else waited + 1
        best = min(best, record.losses[-1])
        if options.patience and waited >= options.patience:
            record.stopped = "no-progress"
            break
    if average is not None:
        average.store(network)
    record.seconds = time.monotonic() - started
    network.eval()
    return record


def _optimizer(groups: list[dict[str, Any]], options: TrainOptions) -> torch.optim.Optimizer:
    groups = [{"weight_decay": options.weight_decay, **group} for group in groups]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, options.learning_rate, momentum=options.momentum, nesterov=True)
    return torch.optim.AdamW(groups, options.learning_rate)


def _schedule(step: int, steps: int, options: TrainOptions) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine (https://arxiv.org/abs/1608.03983)."""
    warm = int(steps * options.warm_up)
    if step < warm:
        return options.learning_rate * (step + 1) / (warm + 1)
    share = (step - warm) / max(1, steps - warm)
    low = options.final_learning_rate
    return options.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * share)) / 2)


def _training_mode(network: torch.nn.Module, options: TrainOptions) -> None:
    network.train()
    if options.freeze_batch_norm:
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()


class _Watch:
    """Tells divergence: a loss that is not finite, or many times what it was at first."""

    def __init__(self, options: TrainOptions) -> None:
        self._options = options
        self._first: list[float] = []
        self._recent: list[float] = []

    def check(self, loss: float, step: int, rate: float) -> None:
        if not math.isfinite(loss):
            raise _diverged(f"the loss became {loss}", step, rate)
        if len(self._first) < _WATCHED:
            self._first.append(loss)
        self._recent = [*self._recent[1 - _WATCHED :], loss]
        first = sum(self._first) / len(self._first)
        recent = sum(self._recent) / len(self._recent)
        if len(self._recent) == _WATCHED and recent > self._options.diverged_factor * max(first, 1e-3):
            raise _diverged(f"the loss grew from {first:.4g} to {recent:.4g}", step, rate)


def _diverged(what: str, step: int, rate: float) -> EngineError:
    return EngineError(
        "TRAINING_DIVERGED",
        f"Training diverged at step {step} with the learning rate {rate:.3g}: {what}. Lower learning_rate to "
        f"{rate / 10:.1g}, or lower gradient_clip, and check the labels and the input spec's scaling.",
    )


class _Average:
    """An exponential moving average of the floating-point state."""

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self._decay = decay
        self._count = 0
        self._state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, network: torch.nn.Module) -> None:
        self._count += 1
        decay = min(self._decay, (1 + self._count) / (10 + self._count))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    self._state[name].lerp_(value, 1 - decay)
                else:
                    self._state[name].copy_(value)

    def store(self, network: torch.nn.Module) -> None:
        network.load_state_dict(self._state)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
