"""Pass ``prune``, structured: whole channels and attention heads go, and the graph gets really smaller."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.pruning.compensation import compensate
from boardwright.compiler.engine.pruning.dependencies import Dependencies, find_dependencies
from boardwright.compiler.engine.pruning.graph import prepare_for_pruning
from boardwright.compiler.engine.pruning.importance import (
    Scores,
    chance,
    magnitude,
    norm_scale,
    reconstruction,
)
from boardwright.compiler.engine.pruning.options import PrunedModel, PruneOptions
from boardwright.compiler.engine.pruning.selection import Bounds, Selection
from boardwright.compiler.engine.pruning.sensitivity import (
    describe_curves,
    error_curves,
    output_error,
    run_all,
)
from boardwright.compiler.engine.pruning.statistics import Moments, gather_moments
from boardwright.compiler.engine.pruning.surgery import check_equal, remove_units
from boardwright.compiler.engine.pruning.units import Cell, Cost, CostModel, find_cells, layer_widths

if TYPE_CHECKING:
    import onnx

Progress = Callable[[int, int, str], None]

_CHECKED = 8
"""Samples that the outputs' error is measured on."""


def prune(
    model: onnx.ModelProto,
    feeds: Sequence[Feed],
    options: PruneOptions | None = None,
    *,
    progress: Progress = lambda done, total, what: None,
) -> PrunedModel:
    """Remove channels and heads of a float32 ``model``; its inputs and outputs keep their shapes.

    ``feeds`` are preprocessed calibration inputs, which are read several times; with none, only what needs no
    samples works.

    Raises:
        EngineError: NOTHING_TO_PRUNE, PRUNING_UNREACHABLE, LAYER_UNKNOWN, BN_SCALES_FOLDED, SAMPLES_NEEDED,
            ALREADY_QUANTIZED, WEIGHTS_NOT_FLOAT32, and see ``remove_units`` and ``check_equal``.
    """
    options = options or PruneOptions()
    if options.needs_samples and not len(feeds):
        raise EngineError(
            "SAMPLES_NEEDED",
            f"Importance {options.importance!r}, scope {options.scope!r} and compensation "
            f"{options.compensation!r} need calibration samples. Give a dataset, or use importance l2 with "
            "compensation none.",
        )
    prepared = prepare_for_pruning(model)
    found = find_dependencies(prepared)
    originals = {cell.key: int(cell.units.size) for cell in find_cells(found)}
    own = {**dict.fromkeys(options.exclude, 0.0), **options.layers}
    run = _Run(options, feeds, progress, Bounds(options.round_to, options.max_ratio, own, originals))
    _check_layers(found, options)
    before = CostModel(found).cost(())
    if not before.macs:
        raise _nothing()
    channels = sum(cell.channels for cell in find_cells(found))
    for number in range(options.rounds):
        share = (number + 1) / options.rounds
        left = _left(found, options.measure, before, channels)
        found = run.step(found, max(0.0, 1 - (1 - options.amount * share) / left), share)
    after = CostModel(found).cost(())
    layers, heads = run.widths(prepared, found)
    error = run.error(prepared, found.model)
    plain = run.uncompensated(prepared)
    return PrunedModel(
        found.model, options, before, after, layers, heads, error, plain, run.compensated, found.frozen_by,
        run.curves, run.notes(found),
    )  # fmt: skip


class _Run:
    """The rounds of one pass."""

    def __init__(
        self, options: PruneOptions, feeds: Sequence[Feed], progress: Progress, bounds: Bounds
    ) -> None:
        self._options = options
        self._feeds = feeds
        self._progress = progress
        self._bounds = bounds
        self._kind = options.importance
        self._gradients_failed = ""
        self._without_scale = 0
        self._heads: dict[str, list[int]] = {}
        self._plain: Dependencies | None = None
        self.compensated = 0
        self.curves: Mapping[str, list[list[float]]] = {}

    def step(self, found: Dependencies, amount: float, share: float) -> Dependencies:
        """Rank, choose, compensate and remove once; returns the smaller graph with its dependencies.

        ``amount`` is a fraction of what is there now, ``share`` the part of the pass that is then done.
        """
        options = self._options
        cells = self._cells(found)
        moments: dict[str, Moments] = {}
        if options.compensation != "none" or options.importance == "reconstruction":
            self._progress(0, 0, "watching how channels vary together")
            held_out = set(self._places(_CHECKED)) if len(self._feeds) >= 4 * _CHECKED else set()
            watched = (feed for place, feed in enumerate(self._feeds) if place not in held_out)
            moments = gather_moments(found, watched, seed=options.seed)
        self._progress(0, 0, f"ranking channels by {options.importance}")
        scores = self._scores(found, cells, moments)
        selection = Selection(cells, scores, CostModel(found), replace(self._bounds, share=share))
        units = self._select(found, selection, moments, amount, share)
        if not units:
            return found
        self._note_heads(cells, units)
        plain = remove_units(found, units)
        check_equal(found, units, plain)
        if options.compensation == "none":
            return find_dependencies(plain)
        alone = self._plain
        self._plain = find_dependencies(plain if alone is None else remove_units(alone, units))
        self._progress(0, 0, "letting the kept channels stand in for the removed")
        ready, count = compensate(found, units, moments, options.compensation)
        self.compensated += count
        return find_dependencies(remove_units(ready, units))

    def uncompensated(self, baseline: onnx.ModelProto) -> float | None:
        """Return the error that the same channels' removal has without compensation; None without any."""
        return None if self._plain is None else self.error(baseline, self._plain.model)

    def error(self, baseline: onnx.ModelProto, pruned: onnx.ModelProto) -> float | None:
        """Return the outputs' error on a few samples (held out where there are 32); None without any."""
        if not len(self._feeds):
            return None
        chosen = self._some(_CHECKED)
        return output_error(run_all(baseline, chosen), run_all(pruned, chosen))

    def widths(
        self, baseline: onnx.ModelProto, found: Dependencies
    ) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
        """Return the layers that lost channels, and the heads that attention lost, as (before, after)."""
        old, new = layer_widths(baseline), layer_widths(found.model)
        layers = {name: (old[name], new[name]) for name in old if name in new and old[name] != new[name]}
        heads = {name: (counts[0], counts[1]) for name, counts in self._heads.items()}
        return layers, heads

    def notes(self, found: Dependencies) -> tuple[str, ...]:
        """Return what a reader of the record should know."""
        notes = [self._gradients_failed] if self._gradients_failed else []
        if self._without_scale:
            notes.append(
                f"{self._without_scale} of the layers have no batch norm behind them and were ranked by L2."
            )
        unknown = sorted(set(found.frozen_by) - {"output"})
        if unknown:
            notes.append(
                "Channels that meet "
                f"{', '.join(unknown)} were all kept: removing them would change what is computed there."
            )
        if self._options.compensation == "none":
            notes.append("Nothing stands in for what was removed: train the result before it is judged.")
        return tuple(notes)

    def _cells(self, found: Dependencies) -> tuple[Cell, ...]:
        cells = find_cells(found)
        if not self._options.heads:
            cells = tuple(cell for cell in cells if not is_heads(found, cell))
        if not cells:
            raise _nothing()
        return cells

    def _scores(self, found: Dependencies, cells: Sequence[Cell], moments: Mapping[str, Moments]) -> Scores:
        kind = self._kind
        if kind == "auto":
            try:
                return self._by_gradients(found, cells)
            except (EngineError, ImportError) as error:
                self._kind = kind = "reconstruction"
                why = error.message if isinstance(error, EngineError) else str(error)
                self._gradients_failed = f"Channels were ranked by reconstruction: no gradients. {why}"
                moments = moments or gather_moments(found, self._feeds, seed=self._options.seed)
        if kind in ("l1", "l2"):
            return magnitude(found, cells, 1 if kind == "l1" else 2)
        if kind == "bn-scale":
            scores, self._without_scale = norm_scale(found, cells)
            return scores
        if kind == "reconstruction":
            return reconstruction(found, cells, moments)
        if kind == "taylor":
            return self._by_gradients(found, cells)
        return chance(cells, self._options.seed)

    def _by_gradients(self, found: Dependencies, cells: Sequence[Cell]) -> Scores:
        from boardwright.compiler.engine.pruning.taylor import taylor

        return taylor(found, cells, self._feeds, seed=self._options.seed)

    def _select(
        self,
        found: Dependencies,
        selection: Selection,
        moments: Mapping[str, Moments],
        amount: float,
        share: float,
    ) -> set[int]:
        options = self._options
        if options.scope == "uniform":
            return selection.uniform(amount, options.measure, options.amount * share)
        if options.scope == "global":
            return selection.over_all(amount, options.measure)

        def prepare(units: set[int]) -> Dependencies:
            return compensate(found, units, moments, options.compensation)[0]

        curves = error_curves(
            found,
            selection,
            self._some(options.sensitivity_samples),
            change=prepare if options.compensation != "none" else None,
            on_cell=lambda done, total: self._progress(done, total, "measuring each layer's sensitivity"),
        )
        self.curves = describe_curves(selection, curves)
        return selection.by_curves(curves, amount, options.measure)

    def _some(self, count: int) -> list[Feed]:
        """Return ``count`` samples spread over all."""
        return [self._feeds[place] for place in self._places(count)]

    def _places(self, count: int) -> list[int]:
        total = len(self._feeds)
        return sorted({int(total * (number + 0.5) / count) for number in range(count)})

    def _note_heads(self, cells: Sequence[Cell], units: set[int]) -> None:
        for cell in cells:
            if cell.width > 1:
                left = sum(unit not in units for unit in cell.units.tolist())
                counts = self._heads.setdefault(cell.name, [int(cell.units.size), left])
                counts[1] = left


def is_heads(found: Dependencies, cell: Cell) -> bool:
    """Tell whether a cell's units are attention heads: leading axes of a MatMul of two activations."""
    if cell.width == 1:
        return False
    stored = {tensor.name for tensor in found.model.graph.initializer}
    for node in found.model.graph.node:
        if node.op_type != "MatMul" or stored & set(node.input):
            continue
        axes = found.axes.get(node.output[0], {})
        leading = [labels for axis, labels in axes.items() if axis < len(found.shapes[node.output[0]]) - 2]
        if any((labels == cell.units[0]).any() for labels in leading):
            return True
    return False


def _nothing() -> EngineError:
    return EngineError(
        "NOTHING_TO_PRUNE",
        "The graph has no float layer whose channels can go: each one is an output or meets an operator that "
        "needs all of them.",
    )


def _left(found: Dependencies, measure: str, before: Cost, channels: int) -> float:
    """Return the fraction of channels, parameters or MACs that earlier rounds have left."""
    if measure == "channels":
        return sum(cell.channels for cell in find_cells(found)) / max(1, channels)
    now = CostModel(found).cost(())
    if measure == "parameters":
        return now.parameters / max(1, before.parameters)
    return now.macs / max(1, before.macs)


def _check_layers(found: Dependencies, options: PruneOptions) -> None:
    """Refuse patterns that fit no layer.

    Raises:
        EngineError: LAYER_UNKNOWN.
    """
    import difflib

    names = [node.name for node in found.model.graph.node]
    prunable = [name for cell in find_cells(found) for name in cell.layers]
    for pattern in (*options.exclude, *options.layers):
        known = names if pattern in options.exclude else prunable
        if not fnmatch.filter(known, pattern):
            near = difflib.get_close_matches(pattern, prunable, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Those are {', '.join(prunable[:8])}…"
            raise EngineError(
                "LAYER_UNKNOWN", f"No layer whose channels can be pruned is called {pattern!r}.{hint}"
            )
