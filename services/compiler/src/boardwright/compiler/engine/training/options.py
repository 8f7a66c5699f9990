"""Options of training: how long, how fast, on which data; read from a pass's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, TypeVar

from boardwright.compiler.engine.errors import EngineError

OPTIMIZERS = ("adamw", "sgd")
RESAMPLINGS = ("none", "balanced", "square-root")
OBJECTIVES = ("auto", "labels", "self-distilled")
LOSSES = ("cross-entropy", "focal")
CLASS_WEIGHTS = ("none", "inverse", "median-frequency")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How a network is trained.

    ``epochs`` bounds the work; ``steps``, where given, bounds it further. ``learning_rate`` is the peak, to
    which ``warm_up`` (a fraction of all steps) leads and from which a cosine leads down to
    ``final_learning_rate`` times the peak. ``gradient_clip`` bounds the gradient's norm (0: unbounded; the
    cheapest guard against divergence). ``average`` is the decay of an exponential moving average of the
    weights (0: none; 0.99 helps small noisy sets and costs one copy of the weights). ``patience`` stops after
    so many epochs without a lower loss (0: never). ``time_limit_seconds`` ends training early, and the record
    says so. ``diverged_factor`` is how many times the first loss counts as divergence.
    ``freeze_batch_norm`` keeps batch norms' statistics: right for small batches.
    """

    epochs: int = 5
    steps: int | None = None
    learning_rate: float = 1e-4
    final_learning_rate: float = 0.01
    warm_up: float = 0.05
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.0
    gradient_clip: float = 10.0
    average: float = 0.0
    patience: int = 0
    time_limit_seconds: float | None = None
    diverged_factor: float = 20.0
    freeze_batch_norm: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_finite(self)
        if self.optimizer not in OPTIMIZERS:
            raise _unfit(f"optimizer {self.optimizer!r} is not known; choose one of {', '.join(OPTIMIZERS)}")
        if self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise _unfit("epochs and steps must be at least 1")
        if not self.learning_rate > 0:
            raise _unfit(f"learning_rate must be above 0, not {self.learning_rate}")
        for name in ("average", "momentum", "warm_up"):
            if not 0 <= getattr(self, name) < 1:
                raise _unfit(f"{name} must be 0 to below 1, not {getattr(self, name)}")
        for name in ("weight_decay", "gradient_clip", "patience", "final_learning_rate"):
            if getattr(self, name) < 0:
                raise _unfit(f"{name} must be 0 or more, not {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Which batches are made of the samples.

    ``samples`` is the most samples to use (None: all), spread evenly. ``flip`` mirrors half of the images:
    free variety, wrong for digits, text and anything with a left and a right. ``scale_jitter`` 0.3 cuts or
    pads images to 0.7 to 1.3 times their size, ``color_jitter`` 0.2 changes brightness, contrast and
    saturation by up to a fifth: both help small sets and need a few epochs more. ``multi_scale`` draws the
    network's input size anew for every batch (0.5: from half to one and a half times; 0: never), which
    helps models that will see objects at other sizes; graphs that are bound to one size are shown smaller
    and larger content in the same frame instead. ``resampling`` draws rare classes more often: ``balanced``
    all classes equally, ``square-root`` half way. ``held_out`` is the share of the samples that is not
    trained on but judges after each epoch: the best weights are kept, which costs nothing but these samples
    and keeps training that does harm from doing it.
    """

    samples: int | None = None
    batch_size: int = 16
    flip: bool = False
    scale_jitter: float = 0.0
    color_jitter: float = 0.0
    multi_scale: float = 0.0
    resampling: str = "none"
    held_out: float = 0.0

    def __post_init__(self) -> None:
        _check_finite(self)
        if self.resampling not in RESAMPLINGS:
            known = ", ".join(RESAMPLINGS)
            raise _unfit(f"resampling {self.resampling!r} is not known; choose one of {known}")
        if self.batch_size < 1 or (self.samples is not None and self.samples < 1):
            raise _unfit("batch_size and samples must be at least 1")
        if not (0 <= self.scale_jitter < 1 and 0 <= self.color_jitter < 1 and 0 <= self.multi_scale < 1):
            raise _unfit("scale_jitter, color_jitter and multi_scale must be 0 or more and below 1")
        if not 0 <= self.held_out <= 0.5:
            raise _unfit(f"held_out must be 0 to 0.5, not {self.held_out}")

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ObjectiveOptions:
    """What is learnt.

    ``objective`` is ``labels``, ``self-distilled`` (the answers of the float network that training begins
    with, or of a baseline: no labels are needed) or ``auto``: labels where every sample of a training dataset
    has a class. Labels may gain on the float network where there are many; with a few hundred they are
    learnt by heart, and self-distillation keeps closer to it. ``loss`` and the rest of the first line are for
    labels: ``focal`` looks at what is still wrong (hard and rare classes), ``class_weights`` ``inverse`` and
    ``median-frequency`` make rare classes count as common ones do, ``label_smoothing`` 0.1 calms small sets.
    ``temperature`` softens a classifier's answers: above 1 tells more of the wrong classes. ``features``
    names activations to be matched beside the answers; each costs its memory.
    """

    objective: str = "auto"
    loss: str = "cross-entropy"
    focal_gamma: float = 2.0
    class_weights: str = "none"
    label_smoothing: float = 0.0
    temperature: float = 4.0
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_finite(self)
        for name, known in (
            ("objective", OBJECTIVES),
            ("loss", LOSSES),
            ("class_weights", CLASS_WEIGHTS),
        ):
            if getattr(self, name) not in known:
                raise _unfit(f"{name} {getattr(self, name)!r} is not known; choose one of {', '.join(known)}")
        if not self.temperature > 0 or not 0 <= self.label_smoothing < 1 or self.focal_gamma < 0:
            raise _unfit("temperature must be above 0, label_smoothing 0 to below 1, focal_gamma 0 or more")
        object.__setattr__(self, "features", tuple(self.features))

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON-able values."""
        return {**asdict(self), "features": list(self.features)}


_Options = TypeVar("_Options", TrainOptions, DataOptions, ObjectiveOptions)


def from_parameters(kind: type[_Options], parameters: Mapping[str, Any]) -> _Options:
    """Return the options that a step's parameters hold by their names; other parameters are passed over."""
    return kind(**{field.name: parameters[field.name] for field in fields(kind) if field.name in parameters})


def _check_finite(options: TrainOptions | DataOptions | ObjectiveOptions) -> None:
    """Refuse what a schema's bounds let through: no number is above or below NaN."""
    for option in fields(options):
        value = getattr(options, option.name)
        if isinstance(value, float) and not isfinite(value):
            raise _unfit(f"{option.name} must be a number, not {value}")


def _unfit(what: str) -> EngineError:
    return EngineError("TRAINING_OPTIONS_UNFIT", f"{what[0].upper()}{what[1:]}.")
