"""What the steps that train share: batches and objective from a request's datasets and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION, TRAINING
from boardwright.compiler.steps.files import open_dataset
from boardwright.jobs.step_api import Progress, StepKind, StepRequest

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.training.data import ImageBatches
    from boardwright.compiler.engine.training.objectives import MakeObjective
    from boardwright.compiler.engine.training.options import ObjectiveOptions, TrainOptions
    from boardwright.model import InputSpec, OutputSpec

_MEMORY_SHARE = 0.7
"""What of a step's memory training may plan with: the rest is Python, torch and the runtime."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a training step works with. ``learnt`` is ``labels`` or ``self-distilled``."""

    batches: ImageBatches
    held_out: ImageBatches | None
    make_objective: MakeObjective
    options: TrainOptions
    learnt: str
    role: str
    any_size: bool
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return what was chosen, for the step's values."""
        found: dict[str, Any] = {"objective": self.learnt, "dataset": self.role}
        if self.held_out is not None:
            found["held_out_samples"] = self.held_out.samples
        if self.any_size:
            found["any_size"] = True
        return found


def prepare_training(
    request: StepRequest, model: onnx.ModelProto, input_spec: InputSpec, output_spec: OutputSpec
) -> Training:
    """Read the dataset ``training``, without one ``calibration``, and choose what is learnt from it."""
    from boardwright.compiler.engine.training.data import DatasetSource, ImageBatches
    from boardwright.compiler.engine.training.network import to_torch
    from boardwright.compiler.engine.training.objectives import chosen
    from boardwright.compiler.engine.training.options import (
        DataOptions,
        ObjectiveOptions,
        TrainOptions,
        from_parameters,
    )

    parameters = {**request.parameters, "seed": request.seed + int(request.parameters["seed"])}
    parameters["samples"] = parameters["training_samples"]
    role = training_role(request)
    source = DatasetSource(open_dataset(request, role))
    data = from_parameters(DataOptions, parameters)
    any_size = False
    if data.multi_scale:
        half = (
            input_spec.height // 64 * 32 or input_spec.height,
            input_spec.width // 64 * 32 or input_spec.width,
        )
        any_size = to_torch(model).takes_size(*half, input_spec.layout)
    batches = ImageBatches(source, input_spec, data, parameters["seed"], any_size=any_size)
    objective = from_parameters(ObjectiveOptions, parameters)
    held_out = batches.held_out()
    counts = None
    if output_spec.task == "classification" and all(label is not None for label in source.labels()):
        counts = batches.class_counts(output_spec.num_classes)
    if objective.objective == "auto" and role == CALIBRATION:
        counts = None  # a few hundred labels are learnt by heart: the float network teaches more
    by_labels = objective.objective == "labels" or (objective.objective == "auto" and counts is not None)
    return Training(
        batches,
        held_out,
        chosen(objective, output_spec, counts),
        from_parameters(TrainOptions, parameters),
        "labels" if by_labels else "self-distilled",
        role,
        any_size,
        _without_effect(objective, by_labels),
    )


_OF_LABELS = ("loss", "class_weights", "label_smoothing", "focal_gamma")
_OF_TEACHERS = ("temperature", "features")


def _without_effect(options: ObjectiveOptions, by_labels: bool) -> tuple[str, ...]:
    """Say which options were set and do nothing for what is learnt."""
    from boardwright.compiler.engine.training.options import ObjectiveOptions

    usual = ObjectiveOptions()
    names = _OF_TEACHERS if by_labels else _OF_LABELS
    idle = [name for name in names if getattr(options, name) != getattr(usual, name)]
    if not idle:
        return ()
    learnt = "class labels are learnt" if by_labels else "the float network's answers are learnt"
    return (f"{', '.join(idle)} had no effect: {learnt}. Set objective to change that.",)


def training_role(request: StepRequest) -> str:
    """Return the dataset that is learnt from: the one for training, else the one for calibration."""
    return TRAINING if TRAINING in request.inputs else CALIBRATION


def memory_of(kind: StepKind) -> int:
    """Return how many bytes training may take in a step of this kind."""
    return int(kind.requires.memory_bytes * _MEMORY_SHARE)


def state_file(request: StepRequest) -> Path | None:
    """Return where training keeps its state, so that a killed step's next attempt goes on from there."""
    return request.state_dir / "training" if request.state_dir is not None else None


def tell(progress: Progress) -> Any:
    """Return what the training loop calls after each step."""
    return lambda step, steps, loss: progress(step, steps, f"training, loss {loss:.4g}")


def training_values(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a training's record what belongs into the step's values."""
    training = described["training"]
    kept = ("steps", "steps_planned", "stopped", "losses", "judged", "kept_epoch")
    return {
        **{name: training[name] for name in kept},
        "objective_before": described["objective_before"],
        "objective_after": described["objective_after"],
    }
