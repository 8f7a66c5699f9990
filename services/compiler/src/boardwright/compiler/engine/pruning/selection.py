"""Which units go: ratios for each layer, for the whole graph, or by how much each layer's loss is felt."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.pruning.importance import Scores
from boardwright.compiler.engine.pruning.units import Cell, CostModel

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

SCOPES = ("uniform", "global", "sensitivity")
MEASURES = ("channels", "parameters", "macs")
_HALVINGS = 40
_NEAR = 0.005
_RATIOS = 9


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for every layer.

    ``round_to`` is the multiple that widths keep to where a layer is wide enough (four times as wide),
    ``max_ratio`` the most that a layer may lose, ``layers`` gives ratios by patterns of layers' names.
    """

    round_to: int = 8
    max_ratio: float = 0.8
    layers: Mapping[str, float] = field(default_factory=dict)

    def own_ratio(self, cell: Cell) -> float | None:
        """Return the ratio that a recipe gives to one of the cell's layers."""
        for pattern, ratio in self.layers.items():
            if any(fnmatch.fnmatchcase(name, pattern) for name in cell.layers):
                return float(ratio)
        return None

    def removable(self, cell: Cell, wanted: float) -> int:
        """Return how many units go at the ratio ``wanted``; the rest is a multiple of ``round_to``."""
        units = int(cell.units.size)
        step = self.round_to
        while step > 1 and (cell.width > 1 or units < 4 * step):
            step //= 2
        own = self.own_ratio(cell)
        least = max(1, math.ceil(units * (1 - (self.max_ratio if own is None else own)) - 1e-9))
        left = max(least, math.ceil(units * (1 - min(wanted, 1.0)) - 1e-9))
        left = min(units, math.ceil(left / step) * step) if units % step == 0 else left
        return units - left


class Selection:
    """Chooses units for a wanted amount. ``scores`` are per cell, low goes first."""

    def __init__(self, cells: Sequence[Cell], scores: Scores, costs: CostModel, bounds: Bounds) -> None:
        import numpy as np

        self.cells = cells
        self.bounds = bounds
        self._costs = costs
        self._order = [np.argsort(score, kind="stable") for score in scores]
        self._scores = scores
        self._whole = costs.cost(())
        self._channels = sum(cell.channels for cell in cells)
        self._members = [set(cell.units.tolist()) for cell in cells]

    def uniform(self, amount: float, measure: str) -> set[int]:
        """Remove the same ratio everywhere; by parameters or MACs, the ratio that reaches ``amount``."""
        if measure == "channels":
            return self._at([amount] * len(self.cells))
        return self._search(lambda level: self._at([level] * len(self.cells)), amount, measure)

    def over_all(self, amount: float, measure: str) -> set[int]:
        """Remove the units with the lowest scores wherever they are."""
        import numpy as np

        weighed = np.sort(np.concatenate(self._scores)) if self._scores else np.zeros(1)

        def level_to_units(level: float) -> set[int]:
            threshold = weighed[min(len(weighed) - 1, int(level * len(weighed)))]
            ratios = [float((score < threshold).mean()) for score in self._scores]
            return self._at(ratios if level < 1 else [1.0] * len(ratios))

        return self._search(level_to_units, amount, measure)

    def by_curves(
        self, curves: Sequence[Sequence[tuple[float, float]]], amount: float, measure: str
    ) -> set[int]:
        """Remove most where it is felt least: per cell the ratio that is best for one common price.

        ``curves`` holds (ratio, error) per cell, ascending. The price of an error in removed parameters or
        MACs (channels for ``channels``) is found by bisection, as Lagrange multipliers are.
        """
        options = [self._options(number, curve, measure) for number, curve in enumerate(curves)]

        def level_to_units(level: float) -> set[int]:
            price = 10.0 ** (-9 + 18 * level)
            ratios = [max(choices, key=lambda o: (o[2] * price - o[1], -o[0]))[0] for choices in options]
            return self._at(ratios)

        return self._search(level_to_units, amount, measure)

    def removed_fraction(self, units: set[int], measure: str) -> float:
        """Return the fraction of channels, parameters or MACs that goes with ``units``."""
        if measure == "channels":
            gone = sum(
                cell.channels * len(units & members) / len(members)
                for cell, members in zip(self.cells, self._members, strict=True)
            )
            return gone / max(1, self._channels)
        cost = self._costs.cost(units)
        if measure == "parameters":
            return 1 - cost.parameters / max(1, self._whole.parameters)
        return 1 - cost.macs / max(1, self._whole.macs)

    def lowest(self, number: int, ratio: float) -> list[int]:
        """Return the units of one cell that go first at ``ratio``."""
        cell = self.cells[number]
        count = self.bounds.removable(cell, ratio)
        return [int(unit) for unit in cell.units[self._order[number][:count]]]

    def _options(
        self, number: int, curve: Sequence[tuple[float, float]], measure: str
    ) -> list[tuple[float, float, float]]:
        """Return (ratio, error, saving) at fine steps, errors interpolated along the curve."""
        import numpy as np

        ratios = np.linspace(0, self.bounds.max_ratio, _RATIOS)
        known = [(0.0, 0.0), *curve]
        errors = np.interp(ratios, [ratio for ratio, _ in known], [error for _, error in known])
        last = max(ratio for ratio, _ in known)
        errors = np.where(ratios > last, errors * (ratios / max(last, 1e-9)) ** 2, errors)
        return [
            (
                float(ratio),
                float(error),
                self.removed_fraction(set(self.lowest(number, float(ratio))), measure),
            )
            for ratio, error in zip(ratios, errors, strict=True)
        ]

    def _at(self, ratios: Sequence[float]) -> set[int]:
        chosen: set[int] = set()
        for number, (cell, ratio) in enumerate(zip(self.cells, ratios, strict=True)):
            own = self.bounds.own_ratio(cell)
            chosen.update(self.lowest(number, ratio if own is None else own))
        return chosen

    def _search(self, choose: Callable[[float], set[int]], amount: float, measure: str) -> set[int]:
        most = choose(1.0)
        reached = self.removed_fraction(most, measure)
        if reached < amount - _NEAR:
            raise EngineError(
                "PRUNING_UNREACHABLE",
                f"{100 * amount:.0f} % fewer {measure} were asked for, and at most {100 * reached:.1f} % can "
                f"go: outputs stay, and no layer loses more than {100 * self.bounds.max_ratio:.0f} % "
                "(max_ratio). "
                "Ask for less, raise max_ratio, or lower round_to.",
            )
        low, high, best = 0.0, 1.0, most
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            units = choose(middle)
            if self.removed_fraction(units, measure) >= amount - _NEAR:
                high, best = middle, units
            else:
                low = middle
            if high - low < 1e-6:
                break
        return best
