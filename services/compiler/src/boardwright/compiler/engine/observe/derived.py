"""What follows from a measured tensor, by running the graph's own elementwise functions on its statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe.histogram import BIN_CODES, FloatHistogram
from boardwright.compiler.engine.observe.record import ChannelStatistics, TensorStatistics

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from boardwright.compiler.engine.observe.plan import ObservationPlan

    Array = np.ndarray[Any, Any]

_GRID_STEP = 8  # every 8th bin: 16 points per power of two
_GRID_FROM = 2.0**-20


class Derivation:
    """Evaluates the functions of a plan; the session is made once."""

    def __init__(self, model: onnx.ModelProto, plan: ObservationPlan) -> None:
        self._plan = plan
        self._roots = sorted(set(plan.derived.values()))
        self._session: Any = None
        if plan.functions:
            self._session = open_session(_functions(model, plan, self._roots), threads=1, level="basic")

    def derive(self, known: Mapping[str, TensorStatistics]) -> dict[str, TensorStatistics]:
        """Return the statistics of every derived tensor from those of the measured ones in ``known``."""
        import numpy as np

        if self._session is None:
            return {}
        points = {root: _points(known[root]) for root in self._roots if root in known}
        empty = np.zeros(1, np.float32)
        feed = {root: points.get(root, empty) for root in self._roots}
        names = [name for name in self._plan.derived if self._plan.derived[name] in points]
        with np.errstate(all="ignore"):
            values = dict(zip(names, self._session.run(names, feed), strict=True))
        return {
            name: _follow(
                known[root], points[root], values[name].reshape(-1), root, name in self._plan.elementwise
            )
            for name, root in self._plan.derived.items()
            if root in points
        }


def _functions(model: onnx.ModelProto, plan: ObservationPlan, roots: Iterable[str]) -> onnx.ModelProto:
    """Return a graph of the plan's functions alone; its inputs are the measured tensors, as vectors."""
    import onnx
    from onnx import TensorProto, helper

    moved = dict(plan.same)
    nodes = []
    for node in plan.functions:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(copy.input):
            while name in moved:
                name = moved[name]
            copy.input[index] = name
        nodes.append(copy)
    read = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    nodes = [n for n in model.graph.node if n.op_type == "Constant" and n.output[0] in read] + nodes
    graph = helper.make_graph(
        nodes,
        "functions",
        [helper.make_tensor_value_info(root, TensorProto.FLOAT, [None]) for root in roots],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in plan.derived],
        constants,
    )
    return helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=min(model.ir_version, 10)
    )


def _points(found: TensorStatistics) -> Array:
    """Return where to evaluate: the histogram's bins first, then the extremes and a grid."""
    import numpy as np

    middle, _ = found.histogram.ordered()
    codes = np.arange(0, BIN_CODES, _GRID_STEP, dtype=np.uint32)
    grid = (codes << 16).view(np.float32)
    grid = grid[np.isfinite(grid) & (np.abs(grid) >= _GRID_FROM)]
    parts = [middle, [found.low, found.high, 0.0], grid]
    if found.channels:
        parts += [found.channels.low, found.channels.high]
    points: Array = np.concatenate([np.asarray(part, np.float32) for part in parts])
    return points.clip(np.float32(found.low), np.float32(found.high))


def _follow(
    found: TensorStatistics, points: Array, values: Array, root: str, elementwise: bool
) -> TensorStatistics:
    import numpy as np

    bins = found.histogram.codes.size
    histogram = found.histogram
    if bins:
        histogram = FloatHistogram.from_values(values[:bins], found.histogram.ordered()[1])
    channels = None
    if elementwise and found.channels is not None:
        channels = _channels(found.channels, points, values)
    return TensorStatistics(
        float(np.min(values)), float(np.max(values)), histogram, "derived", (root,), channels, found.values
    )


def _channels(found: ChannelStatistics, points: Array, values: Array) -> ChannelStatistics:
    """Return each channel's range: the least and greatest value between its own lowest and highest input."""
    import numpy as np

    order = np.argsort(points, kind="stable")
    points, values = points[order], np.append(values[order], values[order[-1]])
    first = np.searchsorted(points, np.asarray(found.low, np.float32), side="left")
    last = np.searchsorted(points, np.asarray(found.high, np.float32), side="right")
    pairs = np.stack([first, last], axis=1).reshape(-1)
    low, high = np.minimum.reduceat(values, pairs)[::2], np.maximum.reduceat(values, pairs)[::2]
    return ChannelStatistics(found.axis, tuple(low.tolist()), tuple(high.tolist()))
