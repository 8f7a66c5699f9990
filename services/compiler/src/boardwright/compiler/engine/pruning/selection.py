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
"""Half a percent under what is asked for counts as reached: widths are multiples."""
_RATIOS = 9
"""Steps along a curve of errors that was measured at two ratios."""
_PARTS = 8
"""Portions in which the last cells are filled up."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for every layer.

    ``round_to`` is the multiple that widths keep to where a layer is wide enough (four times as wide),
    ``max_ratio`` the most that a layer may lose, ``layers`` gives ratios by patterns of layers' names.
    Ratios are of the ``originals``, units by cell before the first round; ``share`` is the part of the
    ratios in ``layers`` that is due in this round.
    """

    round_to: int = 8
    max_ratio: float = 0.8
    layers: Mapping[str, float] = field(default_factory=dict)
    originals: Mapping[str, int] = field(default_factory=dict)
    share: float = 1.0

    def own_ratio(self, cell: Cell) -> float | None:
        """Return the ratio that a recipe gives to one of the cell's layers."""
        for pattern, ratio in self.layers.items():
            if any(fnmatch.fnmatchcase(name, pattern) for name in cell.layers):
                return float(ratio)
        return None

    def original(self, cell: Cell) -> int:
        """Return how many units the cell had before the first round."""
        return self.originals.get(cell.key, int(cell.units.size))

    def removable(self, cell: Cell, left: float) -> int:
        """Return how many units go where ``left`` are wanted to stay; a multiple of ``round_to`` stays."""
        units, original = int(cell.units.size), self.original(cell)
        step = self.round_to
        while step > 1 and (cell.width > 1 or original < 4 * step or original % step):
            step //= 2
        own = self.own_ratio(cell)
        least = original * (1 - self.max_ratio) if own is None else original * (1 - own * self.share)
        stays = max(1, math.ceil(max(least, left if own is None else 0) - 1e-6))
        return units - min(units, math.ceil(stays / step) * step)


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

    def uniform(self, amount: float, measure: str, ratio: float) -> set[int]:
        """Remove the same ratio of every cell's original units: ``ratio`` of channels, else what is needed.

        By parameters and MACs it is the ratio that removes ``amount`` of what there is now.
        """

        def at(level: float) -> set[int]:
            return self._left([self.bounds.original(cell) * (1 - level) for cell in self.cells])

        return at(ratio) if measure == "channels" else self._search(at, amount, measure)

    def over_all(self, amount: float, measure: str) -> set[int]:
        """Remove the units with the lowest scores for what each saves of ``measure``, wherever they are."""
        import numpy as np

        prices = [
            score / max(self._saving(number, measure), 1e-12) for number, score in enumerate(self._scores)
        ]
        weighed = np.sort(np.concatenate(prices)) if prices else np.zeros(1)

        def level_to_units(level: float) -> set[int]:
            threshold = weighed[min(len(weighed) - 1, int(level * len(weighed)))]
            ratios = [float((price < threshold).mean()) for price in prices]
            return self._without(ratios if level < 1 else [1.0] * len(ratios))

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
            return self._without(ratios)

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
        return self._first(number, cell.units.size * (1 - ratio))

    def _first(self, number: int, left: float) -> list[int]:
        cell = self.cells[number]
        count = self.bounds.removable(cell, left)
        return [int(unit) for unit in cell.units[self._order[number][:count]]]

    def _saving(self, number: int, measure: str) -> float:
        """Return what one unit of a cell saves on average, while its neighbours are still there."""
        if measure == "channels":
            return self.cells[number].channels / self.cells[number].units.size
        half = self.cells[number].units[: max(1, self.cells[number].units.size // 2)].tolist()
        return self.removed_fraction(set(half), measure) / len(half)

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

    def _without(self, ratios: Sequence[float]) -> set[int]:
        return self._left(
            [cell.units.size * (1 - ratio) for cell, ratio in zip(self.cells, ratios, strict=True)]
        )

    def _left(self, counts: Sequence[float]) -> set[int]:
        chosen: set[int] = set()
        for number, left in enumerate(counts):
            chosen.update(self._first(number, left))
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
        low, high, under, best = 0.0, 1.0, choose(0.0), most
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            units = choose(middle)
            if self.removed_fraction(units, measure) >= amount - _NEAR:
                high, best = middle, units
            else:
                low, under = middle, units
            if high - low < 1e-6:
                break
        return self._fill(under, best, amount, measure)

    def _fill(self, under: set[int], over: set[int], amount: float, measure: str) -> set[int]:
        """Go from a selection that is too small towards one that is too large, bit by bit, until enough."""
        chosen = set(under)
        for number, members in enumerate(self._members):
            has, may = len(under & members), len(over & members)
            for part in range(1, _PARTS + 1):
                if self.removed_fraction(chosen, measure) >= amount - _NEAR:
                    return chosen
                left = len(members) - has - (may - has) * part / _PARTS
                chosen |= set(self._first(number, left)) & over
        return chosen
