"""Where to cut activations off: ranges judged behind the function that reads them.

A range that holds every value spends its 256 steps on outliers. What an error costs is seen behind the next
function: SiLU maps all of -20 … -6 to nearly 0, so that steps spent there are lost, while its input's upper
end passes unchanged. Both ends are searched for the least p-norm of the error behind that function, with p
above 2: a value cut off costs a detector or a classifier more than the same energy spread over many roundings
(Nahshan et al., "Loss Aware Post-training Quantization", https://arxiv.org/abs/1911.07190, choose p so).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.observe import CalibrationRecord, TensorRange
from boardwright.compiler.engine.observe.tails import with_tails
from boardwright.compiler.engine.power_of_two import best_of
from boardwright.compiler.engine.recover.functions import Function, function_behind, saturation
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

NORM = 3.0
NORMS = (3.0, 2.4, 2.0)
"""What to try where something can tell which is best: the smaller, the more is cut off."""

_LEVELS = 255
_SHARES = 28  # candidates for an end of the range, from the whole down to 1/50 of it
_ROUNDS = 2


def choose_ranges(
    model: onnx.ModelProto,
    record: CalibrationRecord,
    scheme: QuantizationScheme,
    excluded: set[str],
    *,
    norm: float = NORM,
) -> tuple[CalibrationRecord, int]:
    """Return ``record`` with the ranges searched, and how many changed.

    Tensors that only nodes in ``excluded`` read keep their range, but for what the function behind them
    cannot tell apart. Without histograms in the record nothing changes.
    """
    topology = Topology(model.graph)
    ranges = dict(record.ranges)
    changed = 0
    for name, found in record.statistics.items():
        whole = record.ranges.get(name)
        if whole is None or not found.histogram.total or whole.low >= whole.high:
            continue
        function = function_behind(topology, name)
        if _leaves(topology, name, excluded):
            new = _unsaturated(whole, function)
        else:
            values, counts = with_tails(found)
            new = search_range(
                values,
                counts,
                whole,
                function,
                symmetric=scheme.activation_symmetric,
                norm=norm,
                power_of_two=scheme.power_of_two,
            )
        if new != whole:
            ranges[name] = new
            changed += 1
    return replace(record, ranges=ranges), changed


def search_range(
    values: Array,
    counts: Array,
    whole: TensorRange,
    function: Function | None = None,
    *,
    symmetric: bool = False,
    norm: float = NORM,
    power_of_two: bool = False,
) -> TensorRange:
    """Return the range whose 8-bit grid has the least error behind ``function`` over weighted ``values``.

    With ``power_of_two`` only grids whose step is one are tried.
    """
    import numpy as np

    values = np.clip(values, whole.low, whole.high)
    weights = counts / counts.sum()
    expected = function(values) if function else values

    def cost(low: float, high: float) -> float:
        rounded = _round(values, low, high, symmetric)
        made = function(rounded) if function else rounded
        return float((weights * np.abs(made - expected) ** norm).sum())

    low, high = min(whole.low, 0.0), max(whole.high, 0.0)
    if high - low < 1e-6:
        return whole
    if power_of_two:
        return best_of(TensorRange(low, high), cost)
    least = cost(low, high)
    shares = np.geomspace(1, 0.02, _SHARES)[1:]
    start_low, start_high = low, high
    for _ in range(_ROUNDS):
        for share in shares:
            if symmetric:
                candidates = [(start_low * share, start_high * share)]
            else:
                candidates = [(low, start_high * share), (start_low * share, high)]
            for candidate in candidates:
                error = cost(*candidate) if candidate[1] > candidate[0] else np.inf
                if error < least:
                    least, (low, high) = error, candidate
    return TensorRange(float(low), float(high))


def _round(values: Array, low: float, high: float, symmetric: bool) -> Array:
    import numpy as np

    if symmetric:
        step = max(-low, high) / (_LEVELS // 2)
        rounded: Array = np.clip(np.rint(values / step), -(_LEVELS // 2), _LEVELS // 2) * step
        return rounded
    step = (high - low) / _LEVELS
    zero = np.rint(-low / step)
    rounded = (np.clip(np.rint(values / step) + zero, 0, _LEVELS) - zero) * step
    return rounded


def _leaves(topology: Topology, name: str, excluded: set[str]) -> bool:
    readers = topology.readers(name)
    return all(topology.nodes[index].name in excluded for index in readers)


def _unsaturated(whole: TensorRange, function: Function | None) -> TensorRange:
    if function is None:
        return whole
    low, high = saturation(function)
    cut = TensorRange(max(whole.low, min(low, 0.0)), min(whole.high, max(high, 0.0)))
    return cut if cut.low < cut.high else whole
