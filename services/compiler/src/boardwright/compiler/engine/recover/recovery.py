"""Pass ``recover`` as a whole: methods one after the other, each kept only where held-out samples say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.calibrated import Calibrated, calibrate
from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.observe import CalibrationRecord, Feed, observe
from boardwright.compiler.engine.protect import Exclusion
from boardwright.compiler.engine.protect.answers import has_dense_head
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.recover.bias_correction import correct_bias
from boardwright.compiler.engine.recover.block import ReconstructionOptions
from boardwright.compiler.engine.recover.boxes import BoxJudge
from boardwright.compiler.engine.recover.equalization import equalize
from boardwright.compiler.engine.recover.judging import Judge
from boardwright.compiler.engine.recover.ranges import NORMS, choose_ranges
from boardwright.compiler.engine.recover.reconstruction import reconstruct
from boardwright.compiler.engine.recover.recovered import write_recovered
from boardwright.compiler.engine.recover.rounding import RoundingOptions, learn_rounding
from boardwright.compiler.engine.recover.segments import multiplications
from boardwright.compiler.engine.recover.threads import threads_for
from boardwright.compiler.engine.scheme import QuantizationScheme
from boardwright.model import InputSpec, OutputSpec

if TYPE_CHECKING:
    import onnx

METHODS = ("equalization", "ranges", "bias-correction", "reconstruction", "rounding")
"""In the order in which they are tried."""

DEFAULT_METHODS = ("equalization", "ranges", "bias-correction", "reconstruction")

_LEARNING = ("reconstruction", "rounding")
_WORTH = 0.995
_NOT_DENSE = (
    "This network answers for every cell of an image. What is learnt counts cells without objects as much as "
    "those with, for ten times the work: it is not tried unless dense_heads asks for it."
)
OnProgress = Callable[[str, int, int], None]
Specs = tuple[InputSpec, OutputSpec]


@dataclass(frozen=True, slots=True)
class RecoverOptions:
    """``methods`` of ``METHODS``; ``samples`` are learnt from, ``held_out`` judge.

    ``dense_heads``: also learn networks that answer for every cell of an image. What is learnt from counts
    all cells alike, most of which show nothing: on a detector it fell, parity rose little, and mAP not.
    """

    methods: tuple[str, ...] = DEFAULT_METHODS
    samples: int = 16
    held_out: int = 8
    reconstruction: ReconstructionOptions = field(default_factory=ReconstructionOptions)
    rounding: RoundingOptions = field(default_factory=RoundingOptions)
    dense_heads: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise EngineError(
                "METHOD_UNKNOWN", f"There is no method {unknown[0]!r}; there are {', '.join(METHODS)}."
            )


@dataclass(frozen=True, slots=True)
class MethodRecord:
    """What a method did to the output error on held-out samples; ``reason`` where it was not kept."""

    method: str
    before: float
    after: float
    applied: bool
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def tried(self) -> bool:
        """Whether the method changed anything that could be judged."""
        return self.after != self.before

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able values; an error that is not finite is null."""
        return {
            "method": self.method,
            "error_before": _number(self.before),
            "error_after": _number(self.after),
            "applied": self.applied,
            "reason": self.reason,
            **self.details,
        }


@dataclass(frozen=True, slots=True)
class Recovery:
    """``model`` is the prepared graph with recovered weights; ``record`` has the ranges that belong to it.

    ``error_before`` is the error of plain rounding on the samples that judge, ``error_after`` that of the
    result; ``held_out`` is how many judge. ``judged_by`` tells of what: of ``boxes``, see ``BoxJudge``, or of
    ``outputs``, noise relative to the signal, mean over the last layers' outputs.
    """

    model: onnx.ModelProto
    record: CalibrationRecord
    exclusions: tuple[Exclusion, ...]
    methods: tuple[MethodRecord, ...]
    error_before: float
    error_after: float
    samples: int
    held_out: int
    judged_by: str

    def file(self) -> onnx.ModelProto:
        """Return the graph that ``quantize(recovered=…)`` takes."""
        return write_recovered(self.model, self.record.ranges)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know, in sentences: methods that were tried and not applied."""
        return tuple(
            f"{found.method}: {found.reason}" for found in self.methods if found.reason and found.tried
        )

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values; an error that is not finite is null."""
        return {
            "samples": self.samples,
            "held_out": self.held_out,
            "judged_by": self.judged_by,
            "error_before": _number(self.error_before),
            "error_after": _number(self.error_after),
            "methods": [found.to_json() for found in self.methods],
        }


def recover(
    model: onnx.ModelProto,
    feeds: Callable[[], Iterable[Feed]],
    scheme: QuantizationScheme,
    options: RecoverOptions = RecoverOptions(),
    *,
    record: CalibrationRecord | None = None,
    exclusions: tuple[Exclusion, ...] | None = None,
    exclude: Iterable[str] = (),
    specs: Specs | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> Recovery:
    """Return ``model`` (float32) fit to be rounded by ``scheme``. No label is looked at.

    ``feeds`` starts over the calibration inputs; the first are learnt from, those after them judge.
    ``record`` and ``exclusions`` are taken where earlier passes found them; ``exclude`` names further nodes
    that stay in floating point. With the ``specs`` of its input and output a detector is judged by its boxes,
    on the first 48 inputs where nothing is learnt.

    Raises:
        ModelError: OUTPUTS_DO_NOT_FIT, where the output spec is not of this graph.
        DatasetUnfit: CALIBRATION_EMPTY.
        QuantizationFailed: NODE_UNKNOWN.
        EngineError: RECORD_UNFIT; RUNTIME_REFUSED, see ``prepare_graph``.
    """
    start = calibrate(
        prepare_graph(model), feeds() if record is None else (), scheme,
        record=record, exclusions=exclusions, exclude=exclude, threads=options.threads,
        on_sample=lambda count: on_progress("observing", count, 0),
    )  # fmt: skip
    samples, held_out = _divide(feeds(), options)
    attempt = _Attempt(start, scheme, samples, held_out, feeds, options, specs, on_progress)
    for name in METHODS:
        if name in options.methods:
            attempt.run(name)
    return Recovery(
        attempt.model, attempt.record, start.exclusions, tuple(attempt.told), attempt.first, attempt.error,
        len(samples), attempt.held_out, attempt.judged_by,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Made:
    """What a method made: how many things it ``touched``, and the error where it had to judge by itself."""

    model: onnx.ModelProto
    record: CalibrationRecord
    touched: int
    details: dict[str, Any] = field(default_factory=dict)
    error: float | None = None


class _Attempt:
    """The graph so far, and what each method makes of it."""

    def __init__(
        self,
        start: Calibrated,
        scheme: QuantizationScheme,
        samples: Sequence[Feed],
        held_out: Sequence[Feed],
        feeds: Callable[[], Iterable[Feed]],
        options: RecoverOptions,
        specs: Specs | None,
        on_progress: OnProgress,
    ) -> None:
        self._original = self.model = start.model
        self.record = start.record
        self._scheme, self._excluded, self._options = scheme, start.excluded, options
        self._samples, self._held_out, self._feeds = samples, held_out, feeds
        self._on_progress = on_progress
        self._dense = has_dense_head(Subject(start.model, start.record.ranges, scheme))
        self._judge, self.judged_by = self._judge_of(specs)
        self.held_out = self._judge.count
        self.error = self.first = self._judge.error(start.model, start.record)
        self.told: list[MethodRecord] = []

    def _judge_of(self, specs: Specs | None) -> tuple[Judge | BoxJudge, str]:
        given = self._scheme, self._excluded
        if specs is not None and specs[1].task == "detection":
            judging = (lambda: self._held_out) if self._learns else self._feeds
            boxes = BoxJudge(self.model, judging, *given, specs, self._options.threads)
            if boxes.can_tell:
                return boxes, "boxes"
        return Judge(self.model, self._held_out, *given, self._options.threads), "outputs"

    @property
    def _learns(self) -> bool:
        asked = any(method in self._options.methods for method in _LEARNING)
        return asked and (not self._dense or self._options.dense_heads)

    def run(self, method: str) -> None:
        """Try a method; keep it if the output error falls.

        A dense head's error over its outputs is that of its background, nearly all of its cells. Shifted
        means cost its few objects more: where boxes cannot be judged, corrected biases are kept unless all
        gains are lost by them.
        """
        self._on_progress(method, 0, 0)
        if method in _LEARNING and not self._learns:
            self.told.append(MethodRecord(method, self.error, self.error, False, _NOT_DENSE))
            return
        apply = {
            "equalization": self._equalization,
            "ranges": self._ranges,
            "bias-correction": self._bias_correction,
            "reconstruction": self._reconstruction,
            "rounding": self._rounding,
        }[method]
        try:
            with self._threads() if method in _LEARNING else nullcontext():
                made = apply()
            after = self._error_of(made)
        except EngineError as error:
            reason = f"It does not work on this graph ({error.reason}): {error.message}"
            self.told.append(MethodRecord(method, self.error, self.error, False, reason))
            return
        if not made.touched:
            reason = "There is nothing for it to do here."
            self.told.append(MethodRecord(method, self.error, self.error, False, reason, made.details))
            return
        blind = self._dense and self.judged_by == "outputs" and method == "bias-correction"
        kept = after < (self.first if blind else self.error * _WORTH)
        reason = "" if kept else (
            f"The error of {self.judged_by} went from {self.error:.3g} to {after:.3g}: it is not applied."
        )  # fmt: skip
        self.told.append(MethodRecord(method, self.error, after, kept, reason, made.details))
        if kept:
            self.model, self.record, self.error = made.model, made.record, after
            if method == "equalization":
                self._original = made.model

    def _error_of(self, made: _Made) -> float:
        if not made.touched:
            return self.error
        return self._judge.error(made.model, made.record) if made.error is None else made.error

    def _threads(self) -> AbstractContextManager[None]:
        return threads_for(multiplications(self._original), self._options.threads)

    def _equalization(self) -> _Made:
        model, found = equalize(self.model, self._excluded)
        if not found.pairs:
            return _Made(model, self.record, 0, found.to_json())
        record = observe(model, [*self._samples, *self._held_out], threads=self._options.threads)
        return _Made(model, record, len(found.pairs), found.to_json())

    def _ranges(self) -> _Made:
        if not self.record.statistics or self.record.method != "min-max":
            return _Made(self.model, self.record, 0, {"kept_method": self.record.method})
        found = {
            norm: choose_ranges(self.model, self.record, self._scheme, self._excluded, norm=norm)
            for norm in NORMS
        }
        errors = {}
        for norm, (record, _) in found.items():
            errors[norm] = self._judge.error(self.model, record)
            self._on_progress("ranges", len(errors), len(NORMS))
        best = min(NORMS, key=lambda norm: errors[norm])
        record, changed = found[best]
        return _Made(self.model, record, changed, {"tensors": changed, "norm": best}, errors[best])

    def _bias_correction(self) -> _Made:
        model, corrected = correct_bias(self.model, self.record, self._scheme, self._excluded)
        return _Made(model, self.record, corrected, {"layers": corrected})

    def _reconstruction(self) -> _Made:
        if not self._samples:
            return _Made(self.model, self.record, 0)
        model, record, blocks = reconstruct(
            self._original, self.model, self.record, self._scheme, self._excluded,
            self._samples, self._held_out, self._options.reconstruction,
            lambda done, total: self._on_progress("reconstruction", done, total),
        )  # fmt: skip
        applied = sum(block.applied for block in blocks)
        return _Made(model, record, applied, {"blocks": [block.to_json() for block in blocks]})

    def _rounding(self) -> _Made:
        if not self._samples:
            return _Made(self.model, self.record, 0)
        model, layers = learn_rounding(
            self._original, self.model, self.record, self._scheme, self._excluded,
            self._samples, self._held_out, self._options.rounding,
            lambda done, total: self._on_progress("rounding", done, total),
        )  # fmt: skip
        applied = sum(layer.applied for layer in layers)
        return _Made(model, self.record, applied, {"layers": [layer.to_json() for layer in layers]})


def _number(error: float) -> float | None:
    return float(f"{error:.4g}") if math.isfinite(error) else None


def _divide(feeds: Iterable[Feed], options: RecoverOptions) -> tuple[list[Feed], list[Feed]]:
    """Return the samples to learn from and those to judge by; with few, at least a third judges."""
    wanted = options.samples + options.held_out
    found: list[Feed] = []
    for feed in feeds:
        found.append({name: value.copy() for name, value in feed.items()})
        if len(found) == wanted:
            break
    if not found:
        raise DatasetUnfit(
            "CALIBRATION_EMPTY",
            "There is no sample to calibrate with: add samples to the dataset and seal it.",
        )
    judging = min(options.held_out, max(len(found) // 3, 1))
    return found[: len(found) - judging], found[len(found) - judging :]
