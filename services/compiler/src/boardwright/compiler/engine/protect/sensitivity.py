"""Per-layer sensitivity at a small fraction of a sweep: what the outputs lose when one unit is quantized.

A naive sweep quantizes one layer after the other and runs the samples each time. Here:

1. One pass over the samples measures each unit's own noise (``noise``), and the power of each tensor.
2. Powers and weights tell how much of it reaches the last layers (``propagation``).
3. A few units, spread over that estimate, are quantized alone on one sample; the output's noise fits the
   estimate's exponents (ridge regression in the logarithm). Then the units that look worst are measured too.

Measured units say so. The signal-to-quantization-noise ratio is balanced over the channels of the outputs, so
that scores of 0 to 1 count as much as boxes of 0 to 640 px beside them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import Feed
from boardwright.compiler.engine.protect.noise import (
    MEAN,
    NOISE,
    POWER,
    SIZE,
    STRENGTH,
    Unit,
    injecting_graph,
    measuring_graph,
    noisy_units,
)
from boardwright.compiler.engine.protect.propagation import (
    TensorPower,
    noise_gains,
    path_shares,
)
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.sqnr import MOST_DB, channel_variances, decibels, noise_ratio

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_PRIOR, _PRIOR_WEIGHT = (1.0, 0.4, 0.4), 3.0
_SORTING = frozenset({"TopK", "NonMaxSuppression", "NonZero"})


@dataclass(frozen=True, slots=True)
class UnitSensitivity:
    """What quantizing one node alone costs. Ratios in decibels: higher is better.

    ``sqnr_db`` is at the outputs, ``local_sqnr_db`` at the node itself. ``measured`` tells a run from an
    estimate. ``rank`` 1 is the most sensitive. ``macs`` are multiplications per run, 0 for others.
    ``metric_drop`` is what the task metric loses in points, None where it was not measured.
    """

    node: str
    operator: str
    sqnr_db: float
    local_sqnr_db: float
    measured: bool
    rank: int
    macs: int
    metric_drop: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "node": self.node,
            "operator": self.operator,
            "sqnr_db": round(self.sqnr_db, 2),
            "local_sqnr_db": round(self.local_sqnr_db, 2),
            "measured": self.measured,
            "rank": self.rank,
            "macs": self.macs,
            "metric_drop": self.metric_drop,
        }


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Units in the graph's order; what the analysis cost, and what all of them lose together.

    ``together_db`` is measured with every unit quantized at once, by the same ratio. ``metric`` names what
    the units' ``metric_drop`` is in, where it was measured.
    """

    units: tuple[UnitSensitivity, ...]
    samples: int
    passes: int
    cpu_seconds: float
    together_db: float
    metric: str = ""

    def worst(self, count: int) -> tuple[UnitSensitivity, ...]:
        """Return the most sensitive units, worst first."""
        return tuple(sorted(self.units, key=lambda unit: unit.rank)[:count])

    def to_json(self) -> list[dict[str, Any]]:
        """Return the units as JSON-able values, in the graph's order."""
        return [unit.to_json() for unit in self.units]

    def describe(self) -> dict[str, Any]:
        """Return how the figures were made, as JSON-able values."""
        return {
            "method": "own noise, propagated by powers, fitted to units measured alone",
            "samples": self.samples,
            "measured_units": sum(unit.measured for unit in self.units),
            "units": len(self.units),
            "passes": self.passes,
            "together_db": round(self.together_db, 2),
            "metric": self.metric,
        }


def measure_sensitivity(
    subject: Subject,
    feeds: Iterable[Feed],
    *,
    excluded: Iterable[str] = (),
    measured_units: int = 24,
    threads: int = 0,
) -> Sensitivity:
    """Return what each unit of a prepared graph costs at the outputs, without the ``excluded`` nodes.

    ``feeds`` are read once; the last one is kept for measuring units alone. Half of ``measured_units`` are
    spread, half are the worst.

    Raises:
        DatasetUnfit: CALIBRATION_EMPTY.
        EngineError: RUNTIME_REFUSED.
    """
    started = time.process_time()
    units = noisy_units(subject, excluded)
    powers, noises, count, feed = _measure_noise(subject, units, feeds, threads)
    if not units:
        return Sensitivity((), count, count, time.process_time() - started, MOST_DB)
    features = _features(subject, units, powers, noises)
    spread = _spread(features, max(3, measured_units // 2))
    runner = OutputNoise(subject, units, feed, threads=threads, watched=spread)
    measured = {number: runner.alone(number) for number in spread}
    estimate = _fit(features, measured)
    worst = [int(number) for number in (-estimate).argsort() if int(number) not in measured]
    worst = worst[: max(0, measured_units - len(spread))]
    second = OutputNoise(subject, units, feed, threads=threads, watched=worst)
    measured |= {number: second.alone(number) for number in worst}
    estimate = _fit(features, measured)
    everything = OutputNoise(subject, units, feed, threads=threads).together()
    passes = count + len(measured) + 4
    seconds = time.process_time() - started
    return _result(subject, units, features, measured, estimate, count, passes, seconds, everything)


class OutputNoise:
    """Noise-to-signal ratios at the outputs on one sample, with chosen units quantized.

    Only ``watched`` units (all by default) carry the machinery, so that a run costs little more than FP32.
    """

    def __init__(
        self,
        subject: Subject,
        units: Sequence[Unit],
        feed: Feed,
        *,
        threads: int = 0,
        watched: Sequence[int] | None = None,
    ) -> None:
        import numpy as np

        chosen = list(range(len(units))) if watched is None else list(watched)
        self._position = {number: position for position, number in enumerate(chosen)}
        self._count = len(chosen)
        if not chosen:
            return
        graph, self._names = injecting_graph(subject, [units[number] for number in chosen], answers(subject))
        self._session = open_session(graph, threads=threads)
        self._feed = feed
        self._reference = self._run(np.zeros(self._count, np.float32))
        self._signals = [channel_variances(found) for found in self._reference]

    def alone(self, number: int) -> float:
        """Return the ratio with one unit quantized."""
        import numpy as np

        strength = np.zeros(self._count, np.float32)
        strength[self._position[number]] = 1
        return self._ratio(strength)

    def together(self) -> float:
        """Return the ratio with all watched units quantized."""
        import numpy as np

        return self._ratio(np.ones(self._count, np.float32))

    def without(self, numbers: set[int]) -> float:
        """Return the ratio with all watched units quantized but these."""
        import numpy as np

        strength = np.ones(self._count, np.float32)
        strength[[self._position[number] for number in numbers if number in self._position]] = 0
        return self._ratio(strength)

    def _ratio(self, strength: Array) -> float:
        return noise_ratio(self._run(strength), self._reference, self._signals)

    def _run(self, strength: Array) -> list[Array]:
        found: list[Array] = self._session.run(self._names, {**self._feed, STRENGTH: strength})
        return found


def answers(subject: Subject) -> list[str]:
    """Return the tensors that a model is judged by: float outputs, or what they are made of before sorting.

    A sorted or suppressed list swaps rows at the least noise, which says nothing of how much there is.
    """
    topology = subject.topology
    sorting = [
        index
        for index, node in enumerate(subject.nodes)
        if node.op_type in _SORTING and not subject.topology.reaches_layer[index]
    ]
    sorted_nodes = set(sorting) | topology.walk(sorting, topology.consumers, lambda _: False)
    found = [
        value.name
        for value in subject.model.graph.output
        if value.name in subject.ranges and topology.producer_of(value.name) not in sorted_nodes
    ]
    for index in sorted(sorted_nodes):
        found += [
            name
            for name in topology.activation_inputs(index)
            if name in subject.ranges and topology.producer_of(name) not in sorted_nodes
        ]
    ends = [subject.nodes[index].output[0] for index in subject.topology.last_layers]
    return list(dict.fromkeys(found or ends))


def _measure_noise(
    subject: Subject, units: Sequence[Unit], feeds: Iterable[Feed], threads: int
) -> tuple[dict[str, TensorPower], dict[str, float], int, Feed]:
    """Return powers and noise powers by tensor, how many samples there were, and the last of them."""
    graph, names = measuring_graph(subject, units)
    session = open_session(graph, threads=threads)
    sums = dict.fromkeys(names, 0.0)
    count, last = 0, None
    for feed in feeds:
        values = session.run(names, feed)
        for name, value in zip(names, values, strict=True):
            sums[name] += float(value) if math.isfinite(float(value)) else 0.0
        count, last = count + 1, feed
    if last is None:
        raise DatasetUnfit(
            "CALIBRATION_EMPTY", "There is no sample to measure sensitivity with: add samples."
        )
    powers, noises = {}, {}
    for tensor in subject.ranges:
        elements = max(sums[SIZE + tensor] / count, 1.0)
        power = sums[POWER + tensor] / count / elements
        variance = max(power - (sums[MEAN + tensor] / count) ** 2, 1e-12 * max(power, 1e-12))
        powers[tensor] = TensorPower(power, variance, elements)
        if NOISE + tensor in sums:
            noises[tensor] = sums[NOISE + tensor] / count / elements
    return powers, noises, count, last


def _features(
    subject: Subject, units: Sequence[Unit], powers: dict[str, TensorPower], noises: dict[str, float]
) -> Array:
    """Return (units, 3): the logarithms of own noise, white gain, and share of the path."""
    import numpy as np

    gains, shares = noise_gains(subject, powers), path_shares(subject, powers)
    rows = []
    for unit in units:
        variance = powers[unit.tensor].variance
        own = noises[unit.tensor] / max(variance, 1e-12)
        rows.append([own, gains.get(unit.tensor, 0.0) * variance, shares.get(unit.tensor, 0.0)])
    logarithms: Array = np.log(np.clip(np.array(rows), 1e-12, 1e12))
    return logarithms


def _spread(features: Array, count: int) -> list[int]:
    """Return unit numbers evenly spread over the first estimate."""
    import numpy as np

    order = np.argsort(features @ np.array(_PRIOR))
    places = np.linspace(0, len(order) - 1, min(count, len(order)))
    return list(dict.fromkeys(int(order[int(place)]) for place in places))


def _fit(features: Array, measured: dict[int, float]) -> Array:
    """Return the logarithm of each unit's ratio: fitted exponents, drawn to the prior; or measured."""
    import numpy as np

    numbers = list(measured)
    found = np.log(np.maximum([measured[number] for number in numbers], 1e-12))
    design = np.column_stack([features[numbers], np.ones(len(numbers))])
    prior = np.column_stack([_PRIOR_WEIGHT * np.eye(3), np.zeros(3)])
    wanted = np.concatenate([found, _PRIOR_WEIGHT * np.array(_PRIOR)])
    exponents, *_ = np.linalg.lstsq(np.concatenate([design, prior]), wanted, rcond=None)
    estimate: Array = np.column_stack([features, np.ones(len(features))]) @ exponents
    estimate[numbers] = found
    return estimate


def _result(
    subject: Subject,
    units: Sequence[Unit],
    features: Array,
    measured: dict[int, float],
    estimate: Array,
    samples: int,
    passes: int,
    seconds: float,
    everything: float,
) -> Sensitivity:
    import numpy as np

    ranks = np.empty(len(units), int)
    ranks[np.argsort(-estimate, kind="stable")] = np.arange(1, len(units) + 1)
    found = tuple(
        UnitSensitivity(
            node=unit.name,
            operator=subject.nodes[unit.node].op_type,
            sqnr_db=decibels(min(1.0, math.exp(float(estimate[number])))),
            local_sqnr_db=decibels(math.exp(float(features[number, 0]))),
            measured=number in measured,
            rank=int(ranks[number]),
            macs=subject.macs.get(unit.node, 0),
        )
        for number, unit in enumerate(units)
    )
    return Sensitivity(found, samples, passes, seconds, decibels(everything))
