"""Options of distillation, and reading them from a step's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from boardwright.compiler.engine.errors import EngineError

OBJECTIVES = ("auto", "soft-labels", "features", "detection", "ultralytics")
FEATURE_LOSSES = ("match", "attention")


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """What is learnt from the teacher.

    ``objective`` ``soft-labels`` and ``detection`` match the answers, ``features`` inner activations as well,
    ``ultralytics`` leaves the work to Ultralytics' trainer; ``auto`` chooses by task and checkpoint.
    ``alpha`` is the teacher's share where a sample has a class label too. ``layers`` pairs activations,
    (student's, teacher's) by tensor name; empty: found by spatial size. ``feature_loss`` ``match`` takes a
    1x1 adapter to the teacher's channels (dropped afterwards), ``attention`` compares where both look and
    needs none. ``score_threshold`` is the least score of a teacher's box that is learnt when boxes are
    decoded; ``teacher_weight`` is Ultralytics' ``dis``.
    """

    objective: str = "auto"
    temperature: float = 4.0
    alpha: float = 0.9
    layers: tuple[tuple[str, str], ...] = ()
    feature_loss: str = "match"
    feature_weight: float = 1.0
    score_threshold: float = 0.05
    teacher_weight: float = 6.0

    def __post_init__(self) -> None:
        for name, known in (("objective", OBJECTIVES), ("feature_loss", FEATURE_LOSSES)):
            if getattr(self, name) not in known:
                raise _unfit(f"{name} {getattr(self, name)!r} is not known; choose one of {', '.join(known)}")
        if not self.temperature > 0:
            raise _unfit(f"temperature must be above 0, not {self.temperature}")
        if not 0 <= self.alpha <= 1:
            raise _unfit(f"alpha must be 0 to 1, not {self.alpha}")
        if self.feature_weight < 0 or self.teacher_weight < 0:
            raise _unfit("feature_weight and teacher_weight must be 0 or more")

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON-able values."""
        return {**asdict(self), "layers": [list(pair) for pair in self.layers]}


def read_distill_options(parameters: Mapping[str, Any]) -> DistillOptions:
    """Return the options that a step's parameters hold by their names.

    Raises:
        EngineError: DISTILL_OPTIONS_UNFIT.
    """
    names = {field.name for field in fields(DistillOptions)}
    found = {name: value for name, value in parameters.items() if name in names}
    pairs = found.get("layers") or ()
    found["layers"] = tuple((str(pair[0]), str(pair[1])) for pair in pairs)
    return DistillOptions(**found)


def _unfit(what: str) -> EngineError:
    return EngineError("DISTILL_OPTIONS_UNFIT", f"{what[0].upper()}{what[1:]}.")
