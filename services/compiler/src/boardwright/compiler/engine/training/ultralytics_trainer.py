"""Ultralytics' own detection trainer, made to keep the module it is given.

``YOLO(file).train()`` builds a network from the YAML inside of the file and copies those weights that fit, so
a pruned network comes back unpruned. Here the given module itself is trained. Nothing is downloaded, plotted
or written beside the run's own folder, and no weights go through a pickle: the best epoch stays in memory.

Import it only after ``prepare_ultralytics``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.distill_model import DistillationModel


class KeepingTrainer(DetectionTrainer):  # type: ignore[misc]
    """Trains ``module`` as it is, with a frozen ``teacher`` beside it where one is given.

    ``data`` is what Ultralytics makes of a ``data.yaml``. ``state`` is that of the exponential moving
    average after the best epoch (by held-out mAP, or the last one), float32; ``losses`` are the mean training
    losses of each epoch, ``scores`` the held-out mAP50-95.
    """

    def __init__(
        self,
        module: Any,
        data: Mapping[str, Any],
        overrides: Mapping[str, Any],
        *,
        teacher: Any = None,
        on_epoch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._module = module
        self._teacher = teacher
        self._given_data = dict(data)
        self._on_epoch = on_epoch
        self._judges = data["val"] != data["train"]
        self.state: dict[str, Any] | None = None
        self.best_epoch = 0
        self.losses: list[dict[str, float]] = []
        self.scores: list[float] = []
        self.diverged = False
        super().__init__(overrides=dict(overrides))
        self.callbacks.clear()  # validators get a copy

    def run_callbacks(self, event: str) -> None:
        """Call nobody: Ultralytics' integrations would report the run to other services."""

    def get_dataset(self) -> dict[str, Any]:
        """Return the dataset it was given; Ultralytics' own check would look for fonts in the network."""
        return self._given_data

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """Return the module it was given, whatever YAML it remembers."""
        return self._module

    def setup_model(self) -> None:
        """Take the module, and put the teacher beside it as ``distill_model`` would."""
        student = self._module
        student.nc, student.names, student.args = self.data["nc"], self.data["names"], self.args
        student.criterion = None
        self.model = student
        if self._teacher is not None:
            self.model = DistillationModel(teacher_model=self._teacher, student_model=student)

    def set_model_attributes(self) -> None:
        """Set what Ultralytics sets, on the student also where it is wrapped."""
        super().set_model_attributes()
        self._module.nc, self._module.names, self._module.args = (
            self.data["nc"],
            self.data["names"],
            self.args,
        )

    def validate(self) -> tuple[dict[str, Any], float]:
        """Judge the moving average on held-out images; without any, later epochs count as better."""
        if not self._judges:
            self.fitness = self.best_fitness = float(self.epoch)
            return {}, self.fitness
        metrics, fitness = super().validate()
        self.scores.append(float(metrics.get("metrics/mAP50-95(B)", 0.0)))
        return metrics, float(fitness)

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Keep the epoch's losses in memory instead of in a CSV file."""
        self.losses.append({name: float(value) for name, value in self.label_loss_items(self.tloss).items()})
        self._on_epoch(self.epoch + 1)

    def save_model(self) -> bool:
        """Keep the moving average where this epoch is the best one so far."""
        if self.fitness == self.best_fitness:
            self.state = {name: value.clone() for name, value in self._averaged().state_dict().items()}
            self.best_epoch = self.epoch + 1
        return False

    def final_eval(self) -> None:
        """Leave out the last validation: the engine judges its own export."""

    def _averaged(self) -> Any:
        averaged = self.ema.ema
        return getattr(averaged, "student_model", averaged)

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Stop where the loss or a weight is no number any more; the best epoch before it is kept."""
        losses = [float(value) for value in (self.tloss or {}).values()]
        weights = (value for value in self._averaged().state_dict().values() if value.is_floating_point())
        if all(map(math.isfinite, losses)) and all(bool(value.isfinite().all()) for value in weights):
            return False
        self.diverged = self.stop = True
        self.fitness = math.nan  # this epoch is never the best
        return False
