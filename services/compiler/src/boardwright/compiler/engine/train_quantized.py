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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError, QuantizationFailed
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import kernel_counts
from boardwright.compiler.engine.observe import CalibrationRecord, Feed, observe
from boardwright.compiler.engine.protect import RULES, Exclusion, protect
from boardwright.compiler.engine.quantize import QuantizedModel, _requested_exclusion, insert_quantization
from boardwright.compiler.engine.recover import correct_bias
from boardwright.compiler.engine.scheme import QuantizationScheme
from boardwright.compiler.engine.training.options import TrainOptions

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.training.loop import Batches, OnStep, TrainRecord
    from boardwright.compiler.engine.training.objectives import MakeObjective


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
    notes: tuple[str, ...] = field(default_factory=tuple)

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
    scale_rate: float = 10.0,
    start: onnx.ModelProto | None = None,
    memory_bytes: int | None = None,
    state_file: Path | None = None,
    on_sample: Callable[[int], None] = lambda _: None,
    on_step: OnStep = lambda step, steps, loss: None,
) -> QuantizedTraining:
    """Train ``model`` (float32) for ``scheme`` and return it quantized.

    ``record`` and ``exclusions`` are taken where an earlier pass found them; else ``feeds`` are observed and
    the graph protected, as ``quantize`` does. ``start`` has the weights to begin with (a recovered graph);
    the teacher is always ``model``. ``ranges`` is ``learned`` or ``moving-average``. ``scale_rate`` is how
    many times faster the logarithms of scales learn than weights.

    Raises:
        EngineError: TRAINING_DIVERGED, TRAINING_OPERATOR_UNSUPPORTED and others of ``training``.
        QuantizationFailed, DatasetUnfit: as ``quantize``.
    """
    from boardwright.compiler.engine.training.fake_quantize import RANGES, RoundedNetwork
    from boardwright.compiler.engine.training.loop import judge, train
    from boardwright.compiler.engine.training.network import GraphNetwork, to_onnx
    from boardwright.compiler.engine.training.quantization_places import find_places

    if ranges not in RANGES:
        raise EngineError(
            "TRAINING_OPTIONS_UNFIT", f"Ranges {ranges!r} are not known; choose one of {', '.join(RANGES)}."
        )
    prepared = prepare_graph(start if start is not None else model)
    found = record if record is not None else observe(prepared, feeds, on_sample=on_sample)
    if exclusions is None:
        exclusions = _protected(prepared, found, scheme) if protect_automatically else ()
    requested = _requested_exclusion(prepared, tuple(exclude))
    kept = (*exclusions, requested) if requested else exclusions
    excluded = {name for exclusion in kept for name in exclusion.nodes}
    prepared, corrected = correct_bias(prepared, found, scheme, excluded)
    teacher = GraphNetwork(prepare_graph(model)).eval()
    network = GraphNetwork(prepared).eval()
    places = find_places(insert_quantization(prepared, found, scheme, excluded), prepared)
    rounded = RoundedNetwork(network, places, scheme, ranges)
    objective = make_objective(teacher, network)
    before = judge(network, batches, objective)
    groups: list[dict[str, Any]] = [
        {"params": rounded.weight_parameters()},
        {"params": rounded.scale_parameters(), "rate_factor": scale_rate, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    told = train(
        network,
        batches,
        objective,
        options,
        on_step,
        groups=groups,
        memory_bytes=memory_bytes,
        state_file=state_file,
    )
    after = judge(network, batches, objective)
    trained_record = rounded.finish(found, found.samples)
    trained = to_onnx(network)
    quantized = insert_quantization(trained, trained_record, scheme, excluded)
    notes = _notes(before, after)
    result = QuantizedModel(
        quantized, scheme, trained_record, kept, _kernels(quantized), (*notes, *told.notes), corrected
    )
    return QuantizedTraining(result, trained, told, before, after, notes)


def _protected(
    prepared: onnx.ModelProto, record: CalibrationRecord, scheme: QuantizationScheme
) -> tuple[Exclusion, ...]:
    """Protect by all rules but that of layers with unlike channels: these are what training heals."""
    rules = [name for name in RULES if name != "weights"]
    return protect(prepared, record.ranges, scheme, rules=rules)


def _kernels(quantized: onnx.ModelProto) -> dict[str, int]:
    try:
        return kernel_counts(quantized)
    except EngineError as error:
        raise QuantizationFailed(
            "QUANTIZED_MODEL_REFUSED", f"The quantized graph does not load. {error.message}"
        ) from error


def _notes(before: float, after: float) -> tuple[str, ...]:
    if after < before:
        return ()
    return (
        f"Training did not help: the objective was {before:.4g} before and is {after:.4g} after it. Use the "
        "quantize pass's result, or train with a lower learning_rate or on more samples.",
    )
