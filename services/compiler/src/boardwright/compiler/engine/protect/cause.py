"""Why a model's quantized form collapsed: the node, the reason, and what to do, in seconds, not a sweep.

``find_cause`` is what the pass ``diagnose`` calls::

    cause = find_cause(model, feeds, scheme=scheme)   # float32 model, a few preprocessed samples
    cause.sentence                                    # "Concat '…' joins tensors whose …"
    cause.advice                                      # what to do next
    cause.exclusions                                  # give them to quantize(exclusions=…)

It observes ranges (or takes a record), asks the rules, and verifies by measuring the outputs' noise on one
sample: with everything on integers, with each suspect alone, and without what the rules protect. Where no
rule explains the loss, the sensitivity analysis names the worst unit and what is unusual about its numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.topology import describe
from boardwright.compiler.engine.observe import CalibrationRecord, Feed, observe
from boardwright.compiler.engine.protect.exclusion import Exclusion, excluded_names
from boardwright.compiler.engine.protect.joins import JOIN_RATIO, joined_magnitudes, wide_join_ratio
from boardwright.compiler.engine.protect.noise import Unit, noisy_units
from boardwright.compiler.engine.protect.rules import protect
from boardwright.compiler.engine.protect.sensitivity import OutputNoise, measure_sensitivity
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.protect.weights import channels_first, per_tensor_sqnr_db
from boardwright.compiler.engine.scheme import QuantizationScheme
from boardwright.compiler.engine.sqnr import decibels, noise_to_signal

if TYPE_CHECKING:
    import onnx

COLLAPSED_DB = 6.0
"""Below it more than a quarter of the outputs' information is noise."""

HEALTHY_DB = 20.0
"""Above it no cause is looked for: the outputs hold a hundred times more signal than noise."""

_RULE_EXPLAINS = 0.5
_MOST_SUSPECTS = 3


@dataclass(frozen=True, slots=True)
class Cause:
    """What spoils the quantized form. ``node`` is empty where nothing spoils it.

    ``plain_db`` is the outputs' signal-to-noise ratio with everything on integers, ``protected_db`` without
    the nodes of ``exclusions``, ``alone_db`` with ``node`` alone on integers; all on one sample, balanced
    over the outputs' channels. ``rule`` names what found it: a rule, or ``sensitivity``.
    """

    node: str
    rule: str
    sentence: str
    advice: str
    exclusions: tuple[Exclusion, ...]
    plain_db: float
    protected_db: float
    alone_db: float
    samples: int
    cpu_seconds: float

    @property
    def collapsed(self) -> bool:
        """Tell whether plain quantization loses the outputs."""
        return self.plain_db < COLLAPSED_DB

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "node": self.node,
            "rule": self.rule,
            "sentence": self.sentence,
            "advice": self.advice,
            "exclusions": [found.to_json() for found in self.exclusions],
            "collapsed": self.collapsed,
            "plain_db": round(self.plain_db, 2),
            "protected_db": round(self.protected_db, 2),
            "alone_db": round(self.alone_db, 2),
            "samples": self.samples,
            "cpu_seconds": round(self.cpu_seconds, 3),
        }


def find_cause(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    *,
    scheme: QuantizationScheme | None = None,
    record: CalibrationRecord | None = None,
    threads: int = 0,
) -> Cause:
    """Return what makes the quantized form of the float32 ``model`` lose its outputs.

    ``feeds`` are a few preprocessed samples (4 are enough); they are kept in memory. ``record`` saves
    observing them, if it was made of the prepared graph.

    Raises:
        DatasetUnfit: CALIBRATION_EMPTY.
        EngineError, QuantizationFailed: see ``prepare_graph`` and ``observe``.
    """
    started = time.process_time()
    samples = list(feeds)
    if not samples:
        raise DatasetUnfit("CALIBRATION_EMPTY", "There is no sample to look for the cause with: add samples.")
    prepared = prepare_graph(model)
    ranges = (record or observe(prepared, samples, threads=threads)).ranges
    exclusions = protect(prepared, ranges, scheme)
    subject = Subject(prepared, ranges, scheme)
    units = noisy_units(subject)
    noise = OutputNoise(subject, units, samples[0], threads=threads)
    plain = noise.together()
    protected = noise.without(_numbers(units, excluded_names(exclusions)))
    found: tuple[str, str, str, str, float]
    if exclusions and protected <= _RULE_EXPLAINS * plain and decibels(plain) < HEALTHY_DB:
        found = _by_rule(subject, units, noise, exclusions, plain)
    elif decibels(plain) >= COLLAPSED_DB:
        sentence = (
            f"Nothing collapses: with everything on integers the outputs keep {decibels(plain):.1f} dB."
        )
        found = ("", "", sentence, "Look for the loss in the calibration samples, or in the runtime.", 0.0)
    else:
        found = _by_sensitivity(subject, samples, exclusions, threads)
    node, rule, sentence, advice, alone = found
    return Cause(
        node,
        rule,
        sentence,
        advice,
        exclusions,
        decibels(plain),
        decibels(protected),
        decibels(alone),
        len(samples),
        time.process_time() - started,
    )


def _by_rule(
    subject: Subject,
    units: Sequence[Unit],
    noise: OutputNoise,
    exclusions: Sequence[Exclusion],
    plain: float,
) -> tuple[str, str, str, str, float]:
    """Return the suspect that does most harm alone, in its rule's words; the first that does half of it."""
    suspects = [
        (number, exclusion) for exclusion in exclusions for number in _suspects(subject, units, exclusion)
    ][:_MOST_SUSPECTS]
    if not suspects:
        first = exclusions[0]
        return first.nodes[0], first.rule, first.reason, _advice(exclusions), 0.0
    harm: dict[int, float] = {}
    for number, _ in suspects:
        harm[number] = noise.alone(number)
        if harm[number] >= _RULE_EXPLAINS * plain:
            break
    number = max(harm, key=lambda found: harm[found])
    exclusion = next(found for suspect, found in suspects if suspect == number)
    alike = sum(other.rule == exclusion.rule for other in exclusions) - 1
    more = f" {alike} more like it were found." if alike else ""
    sentence = f"{exclusion.reason}{more}"
    return units[number].name, exclusion.rule, sentence, _advice(exclusions), harm[number]


def _suspects(subject: Subject, units: Sequence[Unit], exclusion: Exclusion) -> list[int]:
    """Return the units of an exclusion that can be at fault: of a join, the join."""
    members = set(exclusion.nodes)
    numbers = [number for number, unit in enumerate(units) if unit.name in members]
    if exclusion.rule in ("join", "sum"):
        return [
            number
            for number in numbers
            if wide_join_ratio(list(joined_magnitudes(subject, units[number].node).values())) >= JOIN_RATIO
        ]
    return numbers[-2:]


def _by_sensitivity(
    subject: Subject, samples: Sequence[Feed], exclusions: Sequence[Exclusion], threads: int
) -> tuple[str, str, str, str, float]:
    found = measure_sensitivity(
        subject, samples, excluded=excluded_names(exclusions), measured_units=16, threads=threads
    )
    if not found.units:
        return "", "", "No node of the graph runs on integers.", "Choose another profile.", 0.0
    worst = found.worst(1)[0]
    index = next(index for index, node in enumerate(subject.nodes) if node.name == worst.node)
    reason, advice = _unusual(subject, index)
    sentence = (
        f"{describe(subject.nodes[index])} alone leaves {worst.sqnr_db:.1f} dB of the outputs: {reason}."
    )
    return worst.node, "sensitivity", sentence, advice, noise_to_signal(worst.sqnr_db)


def _unusual(subject: Subject, index: int) -> tuple[str, str]:
    """Return what is unusual about a node's numbers, and what helps against that."""
    import numpy as np

    node = subject.nodes[index]
    weight = channels_first(subject, index) if index in subject.layers else None
    if weight is not None and not subject.scheme.per_channel:
        lost = int((per_tensor_sqnr_db(weight, subject.scheme) < COLLAPSED_DB).sum())
        if lost:
            return (
                f"{lost} of its {weight.shape[0]} channels drown in the rounding of one scale for all",
                "Equalise the layers (pass recover), use per-channel scales if the board has them, or "
                "exclude it.",
            )
    found = subject.ranges[node.output[0]]
    sides = np.array([abs(found.low), abs(found.high)])
    return (
        f"its output spans {found.low:.4g} to {found.high:.4g}, and 256 steps over that are too coarse for "
        f"what follows (a step is {float(sides.sum()) / 255:.3g})",
        "Calibrate with MSE or percentile ranges, which cut rare extremes, or exclude the node.",
    )


def _numbers(units: Sequence[Unit], names: set[str]) -> set[int]:
    return {number for number, unit in enumerate(units) if unit.name in names}


def _advice(exclusions: Sequence[Exclusion]) -> str:
    count = sum(len(found.nodes) for found in exclusions)
    return (
        f"Leave {count} nodes in floating point: the passes protect and quantize do so by default "
        "(quantize with protect: true)."
    )
