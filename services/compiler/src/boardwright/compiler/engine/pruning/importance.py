"""What a unit is worth: norms of its weights, batch norms' scales, gradients, or chance.

- ``l1``, ``l2``: the norm of each unit's slice in every layer that makes or reads it, over the layer's mean
  (group magnitude, Fang et al., 2023). Needs no data.
- ``bn-scale``: |gamma| of the batch norms behind the layer (Liu et al., 2017, "Network Slimming").
- ``reconstruction``: what the layers that read the unit would still miss after the channels that stay have
  stood in for it (``compensation``): Optimal Brain Surgeon's saliency (Hassibi & Stork, 1993) for columns of
  weights. Needs samples, no gradients.
- ``taylor``: the first-order change of the outputs (``taylor``). Needs samples and torch.
- ``auto``: ``taylor``, or ``reconstruction`` where the graph has operators that cannot be differentiated.
- ``random``: the control that the others have to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.pruning.dependencies import Dependencies
from boardwright.compiler.engine.pruning.labels import Site
from boardwright.compiler.engine.pruning.statistics import Moments, readers
from boardwright.compiler.engine.pruning.units import Cell

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

IMPORTANCES = ("auto", "l1", "l2", "bn-scale", "reconstruction", "taylor", "random")
WITHOUT_SAMPLES = frozenset({"l1", "l2", "bn-scale", "random"})
_WEIGHT_ROLES = frozenset({"out", "in", "depthwise"})

Scores = list["Array"]
"""One array per cell, (units,) float64 in the order of ``Cell.units``; lower goes first."""


def magnitude(found: Dependencies, cells: Sequence[Cell], power: int) -> Scores:
    """Return norms of order ``power``, averaged over the layers of each cell."""
    import numpy as np

    stored = _Stored(found)
    scores = []
    for cell in cells:
        total = np.zeros(cell.units.size)
        for number in cell.sites:
            site = found.sites[number]
            if site.role not in _WEIGHT_ROLES:
                continue
            raised = np.abs(stored.read(site.tensor).astype(np.float64)) ** power
            norms = per_unit(cell, site, _sum_but(raised, site.axis)) ** (1 / power)
            total += norms / max(float(norms.mean()), 1e-12)
        scores.append(total)
    return scores


def norm_scale(found: Dependencies, cells: Sequence[Cell]) -> tuple[Scores, int]:
    """Return |gamma| summed over each unit's batch norms, and how many cells have none.

    Those without fall back on their L2 norm, at the others' mean.

    Raises:
        EngineError: BN_SCALES_FOLDED, when the graph has no batch norm behind a layer that can be pruned.
    """
    import numpy as np

    stored = _Stored(found)
    scores: list[Array | None] = []
    for cell in cells:
        sites = [found.sites[number] for number in cell.sites if found.sites[number].role == "scale"]
        sums = [per_unit(cell, site, np.abs(stored.read(site.tensor)).astype(np.float64)) for site in sites]
        scores.append(np.sum(sums, axis=0) / len(sums) if sums else None)
    known = [found for found in scores if found is not None]
    if not known:
        raise EngineError(
            "BN_SCALES_FOLDED",
            "The batch norms of this graph are folded into its convolutions, as exporters do, so their "
            "scales are not there to rank channels by. Use importance l2 (a folded scale is part of the "
            "weights' norm), or export with batch norms kept (torch.onnx.export(..., "
            "training=TrainingMode.PRESERVE, do_constant_folding=False) of the network in training mode).",
        )
    level = float(np.mean(np.concatenate(known)))
    norms = magnitude(found, cells, 2)
    filled = [
        score if score is not None else level * norm / max(float(norm.mean()), 1e-12)
        for score, norm in zip(scores, norms, strict=True)
    ]
    return filled, len(scores) - len(known)


def reconstruction(found: Dependencies, cells: Sequence[Cell], moments: Mapping[str, Moments]) -> Scores:
    """Return what the readers of a unit lose, over what they read in all, summed over its readers.

    For a reader with columns w_u and inputs of covariance S, one unit's loss is |w_u|^2 / (S^-1)_uu.
    """
    import numpy as np

    stored = _Stored(found)
    known: dict[int, Array] = {}
    left: dict[str, Array] = {}
    for reader in readers(found):
        site, name = reader.site, reader.tensor
        if name not in moments:
            continue
        if name not in left:
            left[name] = unpredicted(moments[name])
        squares = _sum_but(stored.read(site.tensor).astype(np.float64) ** 2, site.axis)
        whole = float((squares * np.diag(moments[name].covariance())).sum())
        known[id(site)] = squares * left[name] / max(whole, 1e-12)
    scores = []
    for cell, norms in zip(cells, magnitude(found, cells, 2), strict=True):
        sites = [found.sites[number] for number in cell.sites]
        sums = [per_unit(cell, site, known[id(site)]) for site in sites if id(site) in known]
        scores.append(np.sum(sums, axis=0) if sums else norms / max(float(norms.sum()), 1e-12))
    return scores


def unpredicted(moments: Moments) -> Array:
    """Return each channel's variance that the other channels do not explain, (C,)."""
    import numpy as np

    covariance = moments.covariance()
    inverse = np.linalg.inv(covariance + moments.ridge() * np.eye(len(covariance)))
    found: Array = 1.0 / np.maximum(np.diag(inverse), 1e-12)
    return found


def chance(cells: Sequence[Cell], seed: int) -> Scores:
    """Return random scores."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return [rng.random(cell.units.size) for cell in cells]


def per_unit(cell: Cell, site: Site, values: Array) -> Array:
    """Sum values of a site's positions by the cell's units."""
    import numpy as np

    places = np.searchsorted(cell.units, site.labels)
    places = np.minimum(places, cell.units.size - 1)
    own = cell.units[places] == site.labels
    return np.bincount(places[own], weights=values[own], minlength=cell.units.size)


class _Stored:
    def __init__(self, found: Dependencies) -> None:
        self._tensors = {tensor.name: tensor for tensor in found.model.graph.initializer}

    def read(self, name: str) -> Array:
        from onnx import numpy_helper

        found: Array = numpy_helper.to_array(self._tensors[name])
        return found


def _sum_but(values: Array, axis: int) -> Array:
    summed: Array = values.sum(axis=tuple(number for number in range(values.ndim) if number != axis))
    return summed
