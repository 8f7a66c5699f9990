"""Pass ``train-quantized``: quantization-aware training of an imported float graph.

Post-training quantization rounds a finished network. Here the network is trained a little more while it
rounds where its device will: scales learn where to cut off, weights move off the edges between two steps, and
each layer gets used to the noise of those before it. With labels (classification), or self-distilled: the
float network answers, the rounding one learns to answer alike, and unlabelled calibration images are enough.

When it pays: per-tensor schemes, depthwise layers, 7-bit weights, and whatever has lost more than a point
by ``quantize``. What it costs: every epoch is about five times the time of running the images once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.calibrated import Calibrated, calibrate
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.observe import CalibrationRecord, Feed
from boardwright.compiler.engine.protect import RULES, Exclusion
from boardwright.compiler.engine.quantize import QuantizedModel, insert_quantization, quantize_calibrated
from boardwright.compiler.engine.recover import correct_bias
from boardwright.compiler.engine.recover.ranges import choose_ranges
from boardwright.compiler.engine.recover.recovered import read_recovered
from boardwright.compiler.engine.scheme import QuantizationScheme
from boardwright.compiler.engine.training.options import TrainOptions

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.training.loop import Batches, OnStep, TrainRecord
    from boardwright.compiler.engine.training.objectives import MakeObjective

_HEALED = "weights"
"""The rule of protection for layers whose channels are too unlike for one scale: what training heals."""


@dataclass(frozen=True, slots=True)
class QuantizedTraining:
    """What came of it.

    ``quantized`` is the result, ``trained`` the float graph whose rounding it is. ``before`` and ``after``
    are the objective on the same batches, rounded: before training it is what ``quantize`` would have given.
    """

    quantized: QuantizedModel
    trained: onnx.ModelProto
    record: TrainRecord
    before: float
    after: float

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            **self.quantized.describe(),
            "training": self.record.describe(),
            "objective_before": float(f"{self.before:.6g}"),
            "objective_after": float(f"{self.after:.6g}"),
        }


def train_quantized(
    model: onnx.ModelProto,
    batches: Batches,
    scheme: QuantizationScheme,
    make_objective: MakeObjective,
    options: TrainOptions,
    *,
    feeds: Iterable[Feed] = (),
    record: CalibrationRecord | None = None,
    exclusions: tuple[Exclusion, ...] | None = None,
    exclude: Iterable[str] = (),
    protect_automatically: bool = True,
    ranges: str = "learned",
    scale_rate: float = 1.0,
    recovered: onnx.ModelProto | None = None,
    held_out: Batches | None = None,
    memory_bytes: int | None = None,
    state_file: Path | None = None,
    on_sample: Callable[[int], None] = lambda _: None,
    on_step: OnStep = lambda step, steps, loss: None,
) -> QuantizedTraining:
    """Train ``model`` (float32) for ``scheme`` and return it quantized.

    ``record`` and ``exclusions`` are taken where an earlier pass found them; else ``feeds`` are observed
    and the graph protected, as ``quantize`` does, but for layers whose channels are too unlike for one
    scale: training heals these. ``recovered`` is what ``recover`` made of ``model``: its weights and ranges
    are begun with. The teacher is always ``model``. ``ranges`` is ``learned`` or ``moving-average``. The rate
    is relative to each tensor's size; the logarithms of scales learn at ``scale_rate`` times it.
    ``held_out`` batches judge, before and after training and in between: the best weights are kept.

    Raises:
        EngineError: TRAINING_DIVERGED, TRAINING_OPERATOR_UNSUPPORTED and others of ``training``.
        QuantizationFailed, DatasetUnfit: as ``quantize``.
    """
    from boardwright.compiler.engine.training.fake_quantize import RANGES, RoundedNetwork
    from boardwright.compiler.engine.training.loop import judge, train
    from boardwright.compiler.engine.training.network import GraphNetwork, to_onnx
    from boardwright.compiler.engine.training.quantization_places import find_places
    from boardwright.compiler.engine.training.zeros import KeptZeros

    if ranges not in RANGES:
        raise EngineError(
            "TRAINING_OPTIONS_UNFIT", f"Ranges {ranges!r} are not known; choose one of {', '.join(RANGES)}."
        )
    prepared = prepare_graph(model)
    if exclusions is None and not protect_automatically:
        exclusions = ()
    if exclusions is not None:
        exclusions = tuple(exclusion for exclusion in exclusions if exclusion.rule != _HEALED)
    start = calibrate(
        prepared, feeds, scheme,
        record=record, exclusions=exclusions, exclude=exclude,
        rules=[name for name in RULES if name != _HEALED], on_sample=on_sample,
    )  # fmt: skip
    teacher = GraphNetwork(prepared).eval()
    graph, found = _begun(start, scheme, recovered)
    network = GraphNetwork(graph).eval()
    places = find_places(insert_quantization(graph, found, scheme, start.excluded, spread=False), graph)
    rounded = RoundedNetwork(network, places, scheme, ranges)
    objective = make_objective(teacher, network)
    zeros = KeptZeros(network)
    judged = held_out if held_out is not None else batches
    before = judge(network, judged, objective)
    told = train(
        network,
        batches,
        objective,
        options,
        on_step,
        held_out=held_out,
        after_step=zeros.apply,
        groups=rounded.groups(scale_rate),
        memory_bytes=memory_bytes,
        state_file=state_file,
    )
    after = judge(network, judged, objective)
    trained_record = rounded.finish(found, found.samples)
    trained = to_onnx(network)
    quantized = quantize_calibrated(
        replace(start, model=prepare_graph(trained), record=trained_record), scheme
    )
    notes = (*quantized.notes, zeros.note, *_notes(before, after), *told.notes)
    quantized = replace(quantized, notes=tuple(note for note in notes if note))
    return QuantizedTraining(quantized, trained, told, before, after)


def _begun(
    start: Calibrated, scheme: QuantizationScheme, recovered: onnx.ModelProto | None
) -> tuple[onnx.ModelProto, CalibrationRecord]:
    """Return graph and ranges to begin with: as recovered, or as ``quantize`` alone would take them."""
    record = start.record
    if recovered is not None:
        return read_recovered(recovered, start.model, record)
    if record.statistics and record.method == "min-max":
        record, _ = choose_ranges(start.model, record, scheme, start.excluded)
    corrected, _ = correct_bias(start.model, record, scheme, start.excluded)
    return corrected, record


def _notes(before: float, after: float) -> tuple[str, ...]:
    if after < before:
        return ()
    return (
        f"Training did not help: the objective was {before:.4g} before and is {after:.4g} after it. Use the "
        "quantize pass's result, or train with a lower learning_rate or on more samples.",
    )
