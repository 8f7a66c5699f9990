"""The training loop of every training pass: schedule, limits, and the refusal of what diverges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.training.data import Batch
from boardwright.compiler.engine.training.losses import total
from boardwright.compiler.engine.training.memory import part_size
from boardwright.compiler.engine.training.objectives import Objective
from boardwright.compiler.engine.training.options import TrainOptions
from boardwright.compiler.engine.training.resuming import TrainState, load_state, save_state

OnStep = Callable[[int, int, float], None]
_WATCHED = 10
"""Steps whose losses are averaged before they are compared with the least of the first ones."""

_JUDGED_BATCHES = 8


class Batches(Protocol):
    """Batches by epoch; the same number gives the same batches."""

    def __len__(self) -> int:
        """Return how many batches an epoch has."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Return the batches of epoch ``number``, counted from 0."""


@dataclass(slots=True)
class TrainRecord:
    """What happened. ``stopped`` is ``finished``, ``time-limit`` or ``no-progress``.

    ``losses`` are means per epoch; ``terms`` the last step's by name. ``part_samples`` is how many samples
    of a batch were computed at once (0: all).
    """

    options: TrainOptions
    steps_planned: int
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    stopped: str = "finished"
    part_samples: int = 0
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
            "part_samples": self.part_samples,
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
    memory_bytes: int | None = None,
    state_file: Path | None = None,
) -> TrainRecord:
    """Train ``network`` in place and leave it in evaluation mode.

    ``groups`` are torch's parameter groups where some parameters learn at a rate of their own (times
    ``rate_factor``); default: all trainable parameters. ``after_step`` runs after each step (masks,
    projections). ``on_step(step, steps, loss)`` tells progress. ``memory_bytes`` bounds what a step may take:
    batches that need more are computed in parts. ``state_file`` is written after every epoch and, where it is
    there already, gone on from. Deterministic on a CPU with the same number of threads.

    Raises:
        EngineError: TRAINING_DIVERGED, with the step and the rate it happened at; TRAINING_NOTHING, when the
            network has no trainable parameter; MEMORY_TOO_SMALL.
        DatasetUnfit: TRAINING_EMPTY.
    """
    if not len(batches):
        raise DatasetUnfit(
            "TRAINING_EMPTY", "There is no sample to train with: add samples to the dataset and seal it."
        )
    run = _Run(network, objective, options, groups, after_step)
    run.plan(batches, memory_bytes)
    run.resume(state_file)
    while run.epoch < options.epochs and not run.ended:
        run.train_epoch(batches, on_step)
        run.save(state_file)
    return run.finish()


def judge(network: torch.nn.Module, batches: Batches, objective: Objective) -> float:
    """Return the objective's mean over the first batches, in evaluation mode."""
    network.eval()
    values = []
    with torch.no_grad():
        for number, batch in enumerate(batches.epoch(0)):
            if number == _JUDGED_BATCHES:
                break
            values.append(float(total(objective(network, batch))[0]))
    return sum(values) / max(1, len(values))


class _Run:
    """The state of one training."""

    def __init__(
        self,
        network: torch.nn.Module,
        objective: Objective,
        options: TrainOptions,
        groups: list[dict[str, Any]] | None,
        after_step: Callable[[], None],
    ) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise EngineError(
                "TRAINING_NOTHING", "The graph has no trainable weights: leave the training pass out."
            )
        torch.manual_seed(options.seed)
        self.network, self.objective, self.options, self.after_step = network, objective, options, after_step
        self.optimizer = _optimizer(groups or [{"params": self.parameters}], options)
        self.average = _Average(network, options.average) if options.average else None
        self.record = TrainRecord(options, 0)
        self.watch = _Watch(options)
        self.epoch = 0
        self.ended = False
        self.started = time.monotonic()

    def plan(self, batches: Batches, memory_bytes: int | None) -> None:
        planned = self.options.epochs * len(batches)
        self.record.steps_planned = min(planned, self.options.steps) if self.options.steps else planned
        if memory_bytes is not None:
            first = next(iter(batches.epoch(0)))
            size = part_size(self.network, first, self.objective, memory_bytes)
            if size < len(first):
                self.record.part_samples = size
                self.record.notes.append(
                    f"Batches of {len(first)} do not fit into {memory_bytes >> 20} MiB: they are computed "
                    f"{size} samples at a time, with the same gradient."
                )

    def resume(self, path: Path | None) -> None:
        state = load_state(path, self.options.to_json()) if path is not None else None
        if state is None:
            return
        self.network.load_state_dict(state.network)
        self.optimizer.load_state_dict(state.optimizer)
        if self.average is not None and state.average is not None:
            self.average.state = state.average
            self.average.count = state.steps
        self.epoch, self.record.steps, self.record.samples = state.epoch, state.steps, state.samples
        self.record.losses = state.losses
        self.ended = self.record.steps >= self.record.steps_planned
        self.record.notes.append(f"Training was interrupted and went on after {state.epoch} epochs.")

    def save(self, path: Path | None) -> None:
        if path is None:
            return
        average = self.average.state if self.average is not None else None
        state = TrainState(
            self.epoch, self.record.steps, self.record.samples, self.record.losses,
            self.network.state_dict(), self.optimizer.state_dict(), average,
        )  # fmt: skip
        save_state(path, state, self.options.to_json())

    def train_epoch(self, batches: Batches, on_step: OnStep) -> None:
        record = self.record
        _training_mode(self.network, self.options)
        seen: list[float] = []
        for batch in batches.epoch(self.epoch):
            seen.append(self._step(batch))
            on_step(record.steps, record.steps_planned, seen[-1])
            self.ended = record.steps >= record.steps_planned or self._out_of_time()
            if self.ended:
                break
        record.losses.append(sum(seen) / max(1, len(seen)))
        self.epoch += 1
        if self.options.patience and not self.ended and self._waited() >= self.options.patience:
            record.stopped, self.ended = "no-progress", True

    def _step(self, batch: Batch) -> float:
        rate = _schedule(self.record.steps, self.record.steps_planned, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for part in batch.parts(self.record.part_samples or len(batch)):
            loss, self.record.terms = total(self.objective(self.network, part))
            share = len(part) / len(batch)
            value += float(loss.detach()) * share
            self.watch.check_finite(value, self.record.steps, rate)
            (loss * share).backward()
        self.watch.check(value, self.record.steps, rate)
        if self.options.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.options.gradient_clip)
        self.optimizer.step()
        self.after_step()
        if self.average is not None:
            self.average.update(self.network)
        self.record.steps += 1
        self.record.samples += len(batch)
        return value

    def _out_of_time(self) -> bool:
        limit = self.options.time_limit_seconds
        if not limit or time.monotonic() - self.started <= limit:
            return False
        self.record.stopped = "time-limit"
        self.record.notes.append(
            f"The time limit of {limit:g} s ended training after {self.record.steps} of "
            f"{self.record.steps_planned} steps, with the learning rate still high: raise it, or plan fewer "
            "epochs."
        )
        return True

    def _waited(self) -> int:
        """Return for how many epochs the loss has not become lower by a thousandth."""
        best, waited = math.inf, 0
        for loss in self.record.losses:
            waited = 0 if loss < best * 0.999 else waited + 1
            best = min(best, loss)
        return waited

    def finish(self) -> TrainRecord:
        if self.average is not None:
            self.average.store(self.network)
        self.record.seconds = time.monotonic() - self.started
        self.network.eval()
        return self.record


def _optimizer(groups: list[dict[str, Any]], options: TrainOptions) -> torch.optim.Optimizer:
    groups = [{"weight_decay": options.weight_decay, **group} for group in groups]
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            groups, options.learning_rate, momentum=options.momentum, nesterov=options.momentum > 0
        )
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
        self._factor = options.diverged_factor
        self._first: list[float] = []
        self._recent: list[float] = []

    def check_finite(self, loss: float, step: int, rate: float) -> None:
        if not math.isfinite(loss):
            raise _diverged(f"the loss became {loss}", step, rate)

    def check(self, loss: float, step: int, rate: float) -> None:
        if len(self._first) < _WATCHED:
            self._first.append(loss)
        self._recent = [*self._recent[1 - _WATCHED :], loss]
        first = max(min(self._first), 0.05)  # self-distillation begins near 0 and may rise
        recent = sum(self._recent) / len(self._recent)
        if len(self._recent) == _WATCHED and recent > self._factor * first:
            raise _diverged(f"the loss grew from {first:.4g} to {recent:.4g}", step, rate)


def _diverged(what: str, step: int, rate: float) -> EngineError:
    return EngineError(
        "TRAINING_DIVERGED",
        f"Training diverged at step {step} with the learning rate {rate:.3g}: {what}. Set learning_rate to "
        f"{rate / 10:.1g}, or a lower gradient_clip, and check the labels and the input spec's scaling.",
    )


class _Average:
    """An exponential moving average of the floating-point state; it forgets its start in the first steps."""

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self._decay = decay
        self.count = 0
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, network: torch.nn.Module) -> None:
        self.count += 1
        decay = min(self._decay, (1 + self.count) / (10 + self.count))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    self.state[name].lerp_(value, 1 - decay)
                else:
                    self.state[name].copy_(value)

    def store(self, network: torch.nn.Module) -> None:
        network.load_state_dict(self.state)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
