"""Pass ``ablate``: what each factor does alone and what they do together, from one baseline.

The experiments are Variants that passes before it made from the same baseline with the same seeds, and
evaluated; this pass puts them side by side: the metric, parameters, size, latency in the same minutes. Where
a combination does not do what its factors do one by one, it says so: an interaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.diagnose.timing import Latency, measure_both
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.evaluate import HEADLINES, headline
from boardwright.compiler.engine.graph.inspect import graph_inputs
from boardwright.compiler.engine.profiling import graph_costs

if TYPE_CHECKING:
    import numpy as np
    import onnx

_TELLING_POINTS = 0.5


@dataclass(frozen=True, slots=True)
class Experiment:
    """One Variant to compare: its graph, the factors in it (none for the baseline), and its evaluation.

    ``accuracy`` and ``parity`` are fractions of 1 by metric, as the pass ``evaluate`` gives them; ``judged``
    says how it took them ("200 samples, 4 views of each"), where that may differ.
    """

    name: str
    model: onnx.ModelProto
    factors: tuple[str, ...] = ()
    accuracy: Mapping[str, float] = field(default_factory=dict)
    parity: Mapping[str, float] = field(default_factory=dict)
    judged: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    ``latency`` is of this machine with one thread, ``ratio`` over the baseline's in the same minutes.
    ``weight_bytes`` are all stored weights.
    """

    name: str
    factors: tuple[str, ...]
    accuracy: Mapping[str, float]
    parity: Mapping[str, float]
    parameters: int
    weight_bytes: int
    size_bytes: int
    macs: int
    latency: Latency
    ratio: float
    judged: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the line as JSON-able values."""
        return {
            "name": self.name,
            "factors": list(self.factors),
            "accuracy": dict(self.accuracy),
            "parity": dict(self.parity),
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "size_bytes": self.size_bytes,
            "macs": self.macs,
            "latency_ms": self.latency.p50_ms,
            "p95_ms": self.latency.p95_ms,
            "latency_ratio": self.ratio,
            "judged": self.judged,
        }


@dataclass(frozen=True, slots=True)
class Ablation:
    """The table, the baseline first; interactions in sentences; ``notes`` on what is not comparable."""

    metric: str
    rows: tuple[Row, ...]
    interactions: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the ablation as JSON-able values."""
        return {
            "metric": self.metric,
            "rows": [row.describe() for row in self.rows],
            "interactions": list(self.interactions),
            "notes": list(self.notes),
        }


def ablate(
    baseline: Experiment,
    experiments: Sequence[Experiment],
    feed: Mapping[str, np.ndarray[Any, Any]],
    *,
    runs: int = 30,
    on_experiment: Callable[[int], None] = lambda _: None,
) -> Ablation:
    """Compare ``experiments`` with ``baseline``; latencies are taken here, in turns with the baseline's.

    Raises:
        EngineError: METRIC_MISSING, when the baseline was not evaluated with a metric that this pass knows.
    """
    metric = headline(baseline.accuracy)
    if not metric:
        raise EngineError(
            "METRIC_MISSING",
            f"The baseline's evaluation has none of {', '.join(HEADLINES)}: evaluate it on a labelled "
            "dataset.",
        )
    rows = []
    for number, experiment in enumerate((baseline, *experiments)):
        before, after = measure_both(baseline.model, experiment.model, feed, threads=1, runs=runs)
        # The baseline beside itself differs by noise alone, which is no gain.
        rows.append(_row(experiment, before if number else after, after))
        on_experiment(number + 1)
    return Ablation(metric, tuple(rows), _interactions(rows, metric), _notes(rows))


def _row(experiment: Experiment, before: Latency, after: Latency) -> Row:
    model = experiment.model
    if any(not isinstance(axis, int) for shape, _ in graph_inputs(model).values() for axis in shape):
        raise EngineError("SHAPE_FREE", f"The graph of {experiment.name} has free axes: import fixes them.")
    costs = graph_costs(model)
    return Row(
        experiment.name,
        experiment.factors,
        experiment.accuracy,
        experiment.parity,
        _parameters(model),
        costs.weight_bytes,
        model.ByteSize(),
        costs.macs,
        after,
        after.p50_ms / before.p50_ms if before.p50_ms else 1.0,
        experiment.judged,
    )


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Name the rows whose figures were not taken as the baseline's were."""
    return tuple(
        f"{row.name} was judged on {row.judged or 'something else'}, the baseline on "
        f"{rows[0].judged or 'something else'}: its figures show that as well, and no interaction is named. "
        "Evaluate both alike."
        for row in rows[1:]
        if row.judged != rows[0].judged
    )


def _parameters(model: onnx.ModelProto) -> int:
    """Return how many numbers the larger constants hold; scales and zero points do not count."""
    from math import prod

    scales = {
        name
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
        for name in node.input[1:]
    }
    return sum(prod(tensor.dims) for tensor in model.graph.initializer if tensor.name not in scales)


def _interactions(rows: Sequence[Row], metric: str) -> tuple[str, ...]:
    """Return a sentence for each combination whose change differs from the sum of its factors' changes."""
    base = rows[0].accuracy.get(metric)
    alone = {row.factors[0]: row for row in rows if len(row.factors) == 1}
    found = []
    for row in rows:
        singles = [alone[factor] for factor in row.factors if factor in alone]
        if base is None or len(row.factors) < 2 or len(singles) != len(row.factors):
            continue
        if any(one.judged != rows[0].judged for one in (row, *singles)):
            continue
        changes = [single.accuracy.get(metric) for single in singles]
        together = row.accuracy.get(metric)
        if together is None or any(change is None for change in changes):
            continue
        expected = sum(100 * (change - base) for change in changes if change is not None)
        actual = 100 * (together - base)
        named = " and ".join(row.factors)
        if abs(actual - expected) < _TELLING_POINTS:
            found.append(f"{named} add up: {actual:+.2f} points together, {expected:+.2f} one by one.")
        elif actual < expected:
            found.append(
                f"{named} hurt each other: {actual:+.2f} points together, {expected:+.2f} one by one."
            )
        else:
            found.append(
                f"{named} help each other: {actual:+.2f} points together, {expected:+.2f} one by one."
            )
        faster = 1.0
        for single in singles:
            faster *= single.ratio
        found.append(
            f"{named}: {row.ratio:.2f} × the baseline's latency together, {faster:.2f} × if their gains "
            "multiplied."
        )
    return tuple(found)
