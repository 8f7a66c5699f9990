"""How much the outputs suffer when one cell alone loses some of its units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.pruning.dependencies import Dependencies
from boardwright.compiler.engine.pruning.selection import Selection
from boardwright.compiler.engine.pruning.surgery import mask_units
from boardwright.compiler.engine.sqnr import channel_variances, relative_errors

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_RATIOS = (0.25, 0.5)
"""Of a cell's units, what goes when its curve is measured: a session each."""
_LEAST_VARIANCE = 1e-12
"""A channel that hardly varies counts as if it varied by this: rounding 1 in float32 leaves 4e-15."""
_MOST = 1e3
"""An output that has burst is a thousand times its spread away: more would say nothing more."""


def error_curves(
    found: Dependencies,
    selection: Selection,
    feeds: Sequence[Feed],
    *,
    change: Callable[[set[int]], Dependencies] | None = None,
    on_cell: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[tuple[float, float]]]:
    """Return (ratio, output error) pairs for each of the selection's cells.

    ``change`` may prepare the graph for the absence of units (``compensate``) before they are silenced. Costs
    a session and ``len(feeds)`` runs for each cell and ratio.
    """
    reference = run_all(found.model, feeds)
    curves = []
    for number, cell in enumerate(selection.cells):
        points: list[tuple[float, float]] = []
        for ratio in _RATIOS:
            units = selection.lowest(number, ratio)
            if not units or (points and points[-1][0] == len(units) / cell.units.size):
                continue
            prepared = change(set(units)) if change is not None else found
            answers = run_all(mask_units(prepared, units), feeds)
            points.append((len(units) / cell.units.size, output_error(reference, answers)))
        curves.append(points)
        on_cell(number + 1, len(selection.cells))
    return curves


def run_all(model: onnx.ModelProto, feeds: Sequence[Feed]) -> list[list[Array]]:
    """Return the outputs for each feed."""
    session = open_session(model)
    return [session.run(None, dict(feed)) for feed in feeds]


def output_error(reference: Sequence[Sequence[Array]], answers: Sequence[Sequence[Array]]) -> float:
    """Return the root mean square difference of outputs over their own spread, 0 for equal outputs.

    Each channel of an output counts alike, so that pixels do not drown scores. One of another shape (of boxes
    that the graph itself selects, there may be more or fewer) has burst: 1000, the most there is.
    """
    import numpy as np

    errors = []
    for number in range(len(reference[0]) if reference else 0):
        found = [outputs[number] for outputs in answers]
        wanted = [outputs[number] for outputs in reference]
        if [value.shape for value in found] != [value.shape for value in wanted]:
            errors.append(_MOST)
            continue
        ours, theirs = _joined(found), _joined(wanted)
        spread = np.maximum(channel_variances(theirs), _LEAST_VARIANCE)
        squares = np.minimum(relative_errors(ours, theirs, spread), _MOST**2)
        errors.append(float(np.sqrt(squares.mean())))
    return float(np.mean(errors)) if errors else 0.0


def _joined(values: Sequence[Array]) -> Array:
    """Return an output's values for all feeds as one array; without channels where they differ in shape."""
    import numpy as np

    alike = values[0].ndim > 0 and len({value.shape[1:] for value in values}) == 1
    return np.concatenate(values if alike else [value.ravel() for value in values])


def describe_curves(
    selection: Selection, curves: Sequence[Sequence[tuple[float, float]]]
) -> Mapping[str, list[list[float]]]:
    """Return the curves by layer, as JSON-able values."""
    named: dict[str, list[list[float]]] = {}
    for cell, curve in zip(selection.cells, curves, strict=True):
        name = cell.name if cell.name not in named else f"{cell.name} ({len(named)})"
        named[name] = [[round(ratio, 4), round(error, 5)] for ratio, error in curve]
    return named
