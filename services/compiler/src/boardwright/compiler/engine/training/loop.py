"""The training loop of every training pass: schedule, limits, and the refusal of what diverges."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.training.averaging import Average, copied_state
from boardwright.compiler.engine.training.data import Batch
from boardwright.compiler.engine.training.divergence import Watch
from boardwright.compiler.engine.training.losses import total
from boardwright.compiler.engine.training.memory import part_size
from boardwright.compiler.engine.training.objectives import Objective
from boardwright.compiler.engine.training.options import TrainOptions
from boardwright.compiler.engine.training.resuming import StateFile

OnStep = Callable[[int, int, float], None]
_JUDGED_BATCHES = 8

_KEPT = (
    "steps", "samples", "seconds", "stopped", "losses", "terms", "judged", "kept_epoch", "went_back", "notes",
)  # fmt: skip
"""What of the record an interrupted training goes on with."""

_SMALLER = 0.3
"""By which the learning rate is multiplied where an epoch did worse than the best."""


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
    of a batch were computed at once (0: all). ``judged`` is the objective on held-out batches, before
    training and after each epoch, ``kept_epoch`` after how many epochs the weights were taken, and
    ``went_back`` how often an epoch did worse than the best, from which training then went on with a smaller
    rate; all are empty where nothing was held out. ``resumed_after`` is after how many epochs an interrupted
    training went on here; None: this is one run from the beginning.
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
    judged: list[float] = field(default_factory=list)
    kept_epoch: int | None = None
    went_back: int = 0
    notes: list[str] = field(default_factory=list)
    resumed_after: int | None = None

    @property
    def interruption(self) -> str:
        """Say where an interrupted training went on; empty where it was not interrupted."""
        if self.resumed_after is None:
            return ""
        return f"Training was interrupted and went on after epoch {self.resumed_after} of it."

    def describe(self) -> dict[str, Any]:
        """Return the record as JSON-able values: the same for the same training, interrupted or not.

        Seconds are left out: they differ from run to run.
        """
        return {
            "options": self.options.to_json(),
            "steps": self.steps,
            "steps_planned": self.steps_planned,
            "samples": self.samples,
            "stopped": self.stopped,
            "part_samples": self.part_samples,
            "losses": [_rounded(loss) for loss in self.losses],
            "terms": {name: _rounded(value) for name, value in self.terms.items()},
            "judged": [_rounded(value) for value in self.judged],
            "kept_epoch": self.kept_epoch,
            "went_back": self.went_back,
            "notes": list(self.notes),
        }


def train(
    network: torch.nn.Module,
    batches: Batches,
    objective: Objective,
    options: TrainOptions,
    on_step: OnStep = lambda step, steps, loss: None,
    *,
    held_out: Batches | None = None,
    judging: Objective | None = None,
    groups: list[dict[str, Any]] | None = None,
    after_step: Callable[[], None] = lambda: None,
    memory_bytes: int | None = None,
    state_file: Path | None = None,
) -> TrainRecord:
    """Train ``network`` in place and leave it in evaluation mode.

    ``held_out`` batches judge before training and after each epoch, by ``judging`` where that is another
    objective than the one learnt: the weights that did best on them are kept, and ``patience`` waits for
    them; after an epoch that did worse than the best, training goes on from there with a smaller rate.
    Without any the last weights are kept.

    ``groups`` are torch's parameter groups where some parameters learn at a rate of their own (times
    ``rate_factor``); default: all trainable parameters. ``after_step`` runs after each step (masks,
    projections). ``on_step(step, steps, loss)`` tells progress. ``memory_bytes`` bounds what a step may take:
    batches that need more are computed in parts. ``state_file`` is written after epochs and gone on from
    where it is there already, to the same result: it must be of the same network, batches and objective.
    Deterministic on a CPU with the same number of threads.

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
    state = StateFile(state_file, options.to_json())
    run.resume(state.read())
    run.judge(held_out, judging or objective)
    while run.epoch < options.epochs and not run.ended:
        run.train_epoch(batches, on_step)
        run.judge(held_out, judging or objective)
        state.write(run.state())
    return run.finish()


def judge(
    network: torch.nn.Module, batches: Batches, objective: Objective, most: int = _JUDGED_BATCHES
) -> float:
    """Return the objective's mean over the samples of the first ``most`` batches, in evaluation mode."""
    network.eval()
    summed, samples = 0.0, 0
    with torch.no_grad():
        for batch in itertools.islice(batches.epoch(0), most):
            summed += float(total(objective(network, batch))[0]) * len(batch)
            samples += len(batch)
    return summed / max(1, samples)


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
        own = {id(parameter) for parameter in network.parameters()}
        learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.beside = [parameter for parameter in learning if id(parameter) not in own]
        self.average = Average(network, options.average) if options.average else None
        self.best: dict[str, Any] | None = None
        self.record = TrainRecord(options, 0)
        self.watch = Watch(options)
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
                norms = (
                    ", so that batch norms take their statistics from these alone"
                    if _batch_norms(self.network)
                    else ""
                )
                self.record.notes.append(
                    f"Batches of {len(first)} do not fit into {memory_bytes >> 20} MiB: they are computed "
                    f"{size} samples at a time{norms}."
                )

    def state(self) -> dict[str, Any]:
        """Return all that the epochs to come depend on; batches depend on nothing but the epoch's number."""
        self.record.seconds = time.monotonic() - self.started
        return {
            "epoch": self.epoch,
            "ended": self.ended,
            "record": {name: getattr(self.record, name) for name in _KEPT},
            "watch": self.watch.state(),
            "network": self.network.state_dict(),
            "beside": [parameter.detach() for parameter in self.beside],
            "optimizer": self.optimizer.state_dict(),
            "average": self.average and (self.average.count, self.average.state),
            "best": self.best,
        }

    def resume(self, state: dict[str, Any] | None) -> None:
        """Take up the state of an interrupted training."""
        if state is None:
            return
        self.epoch, self.ended, self.best = state["epoch"], state["ended"], state["best"]
        for name, value in state["record"].items():
            setattr(self.record, name, value)
        self.record.resumed_after = self.epoch
        self.started = time.monotonic() - self.record.seconds
        self.watch.resume(state["watch"])
        self.network.load_state_dict(state["network"])
        with torch.no_grad():
            for parameter, value in zip(self.beside, state["beside"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.count, self.average.state = state["average"]

    def train_epoch(self, batches: Batches, on_step: OnStep) -> None:
        record = self.record
        seen: list[float] = []
        for batch in batches.epoch(self.epoch):
            seen.append(self._step(batch))
            on_step(record.steps, record.steps_planned, seen[-1])
            self.ended = record.steps >= record.steps_planned or self._out_of_time()
            if self.ended:
                break
        record.losses.append(sum(seen) / max(1, len(seen)))
        self.epoch += 1

    def judge(self, held_out: Batches | None, objective: Objective) -> None:
        """Judge the state so far, remember the best, and end what makes no progress."""
        record = self.record
        if held_out is not None and len(record.judged) <= self.epoch:
            present = copied_state(self.network)
            if self.average is not None and self.epoch:
                self.average.store(self.network)
            value = judge(self.network, held_out, objective, len(held_out))
            if self.best is None or value < min(record.judged):
                self.best, record.kept_epoch = copied_state(self.network), self.epoch
            worse = bool(record.judged) and value > min(record.judged)
            record.judged.append(value)
            self.network.load_state_dict(present)
            if worse and not self.ended:
                self._go_back()
        if self.options.patience and not self.ended and self._waited() >= self.options.patience:
            record.stopped, self.ended = "no-progress", True

    def _go_back(self) -> None:
        """Go on from the best weights, with smaller steps: those before led away."""
        assert self.best is not None
        self.network.load_state_dict(self.best)
        if self.average is not None:
            self.average.state = copied_state(self.network)
        self.record.went_back += 1

    def _step(self, batch: Batch) -> float:
        rate = _schedule(self.record.steps, self.record.steps_planned, self.options)
        rate *= _SMALLER**self.record.went_back
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for part in batch.parts(self.record.part_samples or len(batch)):
            _training_mode(self.network, frozen=self.options.freeze_batch_norm or len(part) == 1)
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
        """Return for how many epochs the loss (held-out if it can be) has not fallen by a thousandth."""
        best, waited = math.inf, 0
        for loss in self.record.judged or self.record.losses:
            waited = 0 if loss < best * 0.999 else waited + 1
            best = min(best, loss)
        return waited

    def finish(self) -> TrainRecord:
        if self.best is not None:
            self.network.load_state_dict(self.best)
            self._tell_kept()
        elif self.average is not None:
            self.average.store(self.network)
        self.record.seconds = time.monotonic() - self.started
        self.network.eval()
        return self.record

    def _tell_kept(self) -> None:
        kept, judged = self.record.kept_epoch, self.record.judged
        if kept == 0 and len(judged) > 1:
            self.record.notes.append(
                "No epoch did better on the held-out samples than the weights before training, which are "
                "kept: train with a lower learning_rate, or on more samples."
            )
        elif kept is not None and kept < len(judged) - 1:
            self.record.notes.append(
                f"The weights after epoch {kept} of {len(judged) - 1} did best on the held-out samples and "
                "are kept."
            )


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


def _training_mode(network: torch.nn.Module, *, frozen: bool) -> None:
    """Set training mode; ``frozen`` batch norms keep their statistics: one sample has none of its own."""
    network.train()
    if frozen:
        for norm in _batch_norms(network):
            norm.eval()


def _batch_norms(network: torch.nn.Module) -> list[torch.nn.Module]:
    kind = torch.nn.modules.batchnorm._BatchNorm
    return [module for module in network.modules() if isinstance(module, kind)]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
