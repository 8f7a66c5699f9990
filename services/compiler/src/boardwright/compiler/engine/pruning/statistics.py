"""How the channels that layers read vary together, gathered over samples in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.graph.editing import with_outputs
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.pruning.dependencies import Dependencies
from boardwright.compiler.engine.pruning.labels import Site

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_POSITIONS = 512
"""Positions of each sample that count: neighbours in an image tell nearly the same."""
_RIDGE = 1e-2
_WIDEST = 3072
"""Inputs of wider layers are not watched: their products of channels (float64) would take 75 MB a layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer's columns (``site``), and the tensor whose channels (along ``axis``) tell how they vary."""

    site: Site
    tensor: str
    axis: int


@dataclass(slots=True, eq=False)
class Moments:
    """Sums over positions of one tensor: ``total`` (C,) and ``products`` (C, C), both float64."""

    count: int
    total: Array
    products: Array

    @property
    def mean(self) -> Array:
        """Mean of each channel, (C,)."""
        found: Array = self.total / max(1, self.count)
        return found

    def covariance(self) -> Array:
        """Return the covariance of the channels, (C, C)."""
        import numpy as np

        found: Array = self.products / max(1, self.count) - np.outer(self.mean, self.mean)
        return found

    def ridge(self) -> float:
        """Return what to add to the diagonal before it is inverted.

        A hundredth of the mean variance; more where there are few positions per channel, so that chance
        correlations are not taken for redundancy.
        """
        import numpy as np

        width = max(1, len(self.total))
        level = float(np.trace(self.covariance())) / width
        return level * (_RIDGE + width / max(1, self.count)) + 1e-12

    def second_moment(self) -> Array:
        """Return the mean of the products of channels, (C, C)."""
        found: Array = self.products / max(1, self.count)
        return found


def readers(found: Dependencies) -> tuple[Reader, ...]:
    """Return the layers that mix channels which may be pruned, grouped ones left out, with what to watch.

    What a layer reads is watched; behind a global average pool that is the tensor in front of it: the pool is
    linear, and there are as many more positions as it averages.
    """
    nodes = found.model.graph.node
    maker = {output: node for node in nodes for output in node.output}
    kept = []
    for site in found.sites:
        if site.role != "in":
            continue
        name, axis = nodes[site.node].input[0], channel_axis(nodes[site.node], found.shapes)
        width = found.shapes[name][axis]
        if width == site.labels.size and width <= _WIDEST:
            kept.append(Reader(site, *_in_front_of_pool(found, maker, name, axis)))
    return tuple(kept)


def channel_axis(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the axis of a layer's input and output that holds channels."""
    return 1 if node.op_type in ("Conv", "ConvTranspose") else len(shapes[node.input[0]]) - 1


def _in_front_of_pool(
    found: Dependencies, maker: Mapping[str, onnx.NodeProto], name: str, axis: int
) -> tuple[str, int]:
    import numpy as np

    before = maker.get(name)
    while before is not None and before.op_type in ("Flatten", "Reshape", "Squeeze", "Identity"):
        before = maker.get(before.input[0])
    if before is None or before.op_type != "GlobalAveragePool":
        return name, axis
    labels = found.axes.get(before.input[0], {}).get(1)
    same = labels is not None and np.array_equal(labels, found.axes.get(name, {}).get(axis, np.zeros(0)))
    return (before.input[0], 1) if same else (name, axis)


def gather_moments(found: Dependencies, feeds: Iterable[Feed], *, seed: int = 0) -> dict[str, Moments]:
    """Return the moments of every tensor that is watched for one of the ``readers``, by its name.

    At most 512 positions of each sample count, drawn by ``seed``.

    Raises:
        DatasetUnfit: CALIBRATION_EMPTY.
        EngineError: CALIBRATION_NOT_FINITE.
    """
    import numpy as np

    axis_of = {reader.tensor: reader.axis for reader in readers(found)}
    session = open_session(with_outputs(found.model, axis_of))
    rng = np.random.default_rng(seed)
    gathered: dict[str, Moments] = {}
    for feed in feeds:
        for name, value in zip(axis_of, session.run(list(axis_of), dict(feed)), strict=True):
            rows = np.moveaxis(value, axis_of[name], -1).reshape(-1, value.shape[axis_of[name]])
            if len(rows) > _POSITIONS:
                rows = rows[rng.integers(0, len(rows), _POSITIONS)]
            width = rows.shape[1]
            sums = gathered.setdefault(name, Moments(0, np.zeros(width), np.zeros((width, width))))
            sums.count += len(rows)
            sums.total += rows.sum(axis=0, dtype=np.float64)
            sums.products += rows.T @ rows
    bad = [name for name, sums in gathered.items() if not np.isfinite(sums.products).all()]
    if bad:
        raise EngineError(
            "CALIBRATION_NOT_FINITE",
            f"The activation {bad[0]!r} becomes NaN or infinite on calibration samples: look for such "
            "weights or samples, or prune with importance l2 and compensation none.",
        )
    if axis_of and not gathered:
        raise DatasetUnfit(
            "CALIBRATION_EMPTY", "There is no sample to prune with: add samples to the dataset and seal it."
        )
    return gathered
