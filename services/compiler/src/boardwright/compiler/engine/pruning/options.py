"""What pruning is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.pruning.compensation import COMPENSATIONS
from boardwright.compiler.engine.pruning.importance import IMPORTANCES, WITHOUT_SAMPLES
from boardwright.compiler.engine.pruning.selection import MEASURES, SCOPES
from boardwright.compiler.engine.pruning.units import Cost

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """What to remove.

    ``amount`` is a fraction of ``measure`` (channels, parameters, macs), reached in ``rounds`` that each
    rank anew. ``scope`` says how it is spread. ``layers`` fixes ratios by patterns of layers' names,
    ``exclude`` leaves layers alone, ``heads`` False attention heads. ``round_to``, ``max_ratio``: see
    ``Bounds``. ``compensation`` is what stands in for the removed without training.
    """

    amount: float = 0.3
    measure: str = "macs"
    scope: str = "global"
    importance: str = "auto"
    layers: Mapping[str, float] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    heads: bool = True
    max_ratio: float = 0.8
    round_to: int = 8
    rounds: int = 3
    compensation: str = "least-squares"
    sensitivity_samples: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        known = (
            ("measure", self.measure, MEASURES),
            ("scope", self.scope, SCOPES),
            ("importance", self.importance, IMPORTANCES),
            ("compensation", self.compensation, COMPENSATIONS),
        )
        for name, value, choices in known:
            if value not in choices:
                raise _unfit(f"{name} {value!r} is not known; choose one of {', '.join(choices)}")
        if not 0 < self.amount < 1:
            raise _unfit(f"amount is a fraction above 0 and below 1, not {self.amount}")
        if not 0 < self.max_ratio < 1:
            raise _unfit(f"max_ratio is a fraction above 0 and below 1, not {self.max_ratio}")
        for pattern, ratio in self.layers.items():
            if not 0 <= ratio < 1:
                raise _unfit(f"the ratio of {pattern!r} is a fraction of 0 to below 1, not {ratio}")
        if self.rounds < 1 or self.round_to < 1:
            raise _unfit("rounds and round_to must be at least 1")

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON-able values."""
        return {**asdict(self), "layers": dict(self.layers), "exclude": list(self.exclude)}

    @property
    def needs_samples(self) -> bool:
        """Whether ranking or compensation reads samples."""
        ranked = self.importance not in WITHOUT_SAMPLES or self.scope == "sensitivity"
        return ranked or self.compensation != "none"


@dataclass(frozen=True, slots=True, eq=False)
class PrunedModel:
    """What ``prune`` made. ``layers`` maps each layer that lost channels to (before, after).

    ``output_error`` is the root mean square change of the outputs over their spread, on samples; None
    without samples. ``notes`` are plain sentences.
    """

    model: onnx.ModelProto
    options: PruneOptions
    before: Cost
    after: Cost
    layers: Mapping[str, tuple[int, int]]
    heads: Mapping[str, tuple[int, int]]
    output_error: float | None
    error_uncompensated: float | None
    compensated: int
    kept_by: Mapping[str, int]
    curves: Mapping[str, list[list[float]]]
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            "options": self.options.to_json(),
            "before": self.before.describe(),
            "after": self.after.describe(),
            "removed": {
                "parameters": 1 - self.after.parameters / max(1, self.before.parameters),
                "macs": 1 - self.after.macs / max(1, self.before.macs),
            },
            "layers": {name: list(widths) for name, widths in self.layers.items()},
            "heads": {name: list(counts) for name, counts in self.heads.items()},
            "output_error": self.output_error,
            "output_error_without_compensation": self.error_uncompensated,
            "compensated_layers": self.compensated,
            "channels_kept_by": dict(self.kept_by),
            "sensitivity": dict(self.curves),
            "notes": list(self.notes),
        }


def _unfit(what: str) -> EngineError:
    return EngineError("PRUNING_OPTIONS_UNFIT", f"{what[0].upper()}{what[1:]}.")
