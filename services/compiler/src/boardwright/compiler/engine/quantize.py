"""Pass ``quantize``: static INT8 as explicit Quantize/Dequantize pairs, which every toolchain understands.

The scheme follows from the board's quantization profile, the ranges from ``observe``, and what stays in
floating point from ``protect``. The result is loaded and run before it is called a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.calibrated import Calibrated, calibrate
from boardwright.compiler.engine.errors import EngineError, QuantizationFailed
from boardwright.compiler.engine.graph.editing import attributes, copy_of, sort_nodes
from boardwright.compiler.engine.graph.inspect import drop_metadata
from boardwright.compiler.engine.graph.layers import LayerForm, layer_form
from boardwright.compiler.engine.graph.prepare import prepare_graph, require_floats
from boardwright.compiler.engine.graph.session import kernel_counts, try_beside
from boardwright.compiler.engine.graph.topology import WEIGHTED_OPERATORS, Topology
from boardwright.compiler.engine.grid import weight_steps
from boardwright.compiler.engine.indexed import indexed_model
from boardwright.compiler.engine.integer_outputs import give_floats, spread_channels, take_back, takes_part
from boardwright.compiler.engine.integer_softmax import with_room_for_shares
from boardwright.compiler.engine.observe import (
    CalibrationRecord,
    Feed,
    infinite_tensors,
)
from boardwright.compiler.engine.power_of_two import power_of_two_quantizer, rounded_up
from boardwright.compiler.engine.protect import Exclusion
from boardwright.compiler.engine.protect.floats import keep_floats
from boardwright.compiler.engine.recover.bias_correction import correct_bias
from boardwright.compiler.engine.recover.ranges import choose_ranges
from boardwright.compiler.engine.recover.recovered import read_recovered
from boardwright.compiler.engine.scheme import LEAST_RANGE, QuantizationScheme

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """What ``quantize`` made and what it decided.

    ``kernels`` counts what the optimised graph really runs on this machine; ``notes`` are plain sentences.
    """

    model: onnx.ModelProto
    scheme: QuantizationScheme
    record: CalibrationRecord
    exclusions: tuple[Exclusion, ...]
    kernels: dict[str, int]
    notes: tuple[str, ...]
    corrected_biases: int = 0

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            "scheme": self.scheme.to_json(),
            "scheme_label": self.scheme.label,
            "calibration_method": self.record.method,
            "calibration_samples": self.record.samples,
            "exclusions": [
                {"rule": found.rule, "nodes": list(found.nodes), "reason": found.reason}
                for found in self.exclusions
            ],
            "kernels": self.kernels,
            "corrected_biases": self.corrected_biases,
            "notes": list(self.notes),
        }


def quantize(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    scheme: QuantizationScheme,
    *,
    record: CalibrationRecord | None = None,
    exclusions: tuple[Exclusion, ...] | None = None,
    recovered: onnx.ModelProto | None = None,
    exclude: Iterable[str] = (),
    protect_automatically: bool = True,
    correct_biases: bool = True,
    method: str = "min-max",
    threads: int = 0,
    on_sample: Callable[[int], None] = lambda _: None,
) -> QuantizedModel:
    """Quantize the weights and activations of a float32 ``model`` to 8 bits.

    ``feeds`` are preprocessed calibration inputs, read once and one at a time, and not at all where the
    ``record`` of an earlier ``observe`` is given. ``exclusions`` are those of an earlier ``protect``;
    ``recovered`` is what ``recover`` made of the same model: its weights and ranges are taken as they are.
    ``exclude`` names further nodes that stay in floating point. ``correct_biases`` takes back the shift that
    rounding gives each output channel's mean. ``method`` is the calibration's; by ``min-max`` activations are
    cut off where their reader's error is least, if the record has histograms.

    Raises:
        QuantizationFailed: the graph has nothing to quantize, an excluded node is unknown, or the result does
            not load.
        DatasetUnfit, EngineError: see ``observe``.
    """
    prepared = prepare_graph(model)
    _check_quantizable(prepared)
    if exclusions is None and not protect_automatically:
        exclusions = ()
    start = calibrate(
        prepared, feeds, scheme,
        record=record, exclusions=exclusions, exclude=exclude, threads=threads, on_sample=on_sample,
    )  # fmt: skip
    if recovered is not None:
        graph, found = read_recovered(recovered, start.model, start.record)
        return quantize_calibrated(replace(start, model=graph, record=found), scheme)
    graph, found, corrected = start.model, start.record, 0
    if method != found.method:
        found = found.with_method(method, scheme)
    if method == "min-max":
        found, _ = choose_ranges(graph, found, scheme, start.excluded)
    if correct_biases:
        graph, corrected = correct_bias(graph, found, scheme, start.excluded)
    done = quantize_calibrated(replace(start, model=graph, record=found), scheme)
    return replace(done, corrected_biases=corrected)


def quantize_calibrated(start: Calibrated, scheme: QuantizationScheme) -> QuantizedModel:
    """Quantize weights and activations as they are, by the ranges of the record.

    Raises:
        QuantizationFailed: NOTHING_TO_QUANTIZE, QUANTIZER_FAILED, QUANTIZED_MODEL_REFUSED.
    """
    quantized, kernels = _insert_and_count(start.model, start.record, scheme, start.excluded)
    _check_rounded(quantized, start.exclusions)
    try:
        try_beside(quantized, start.model)
    except EngineError as error:
        raise QuantizationFailed(
            "QUANTIZED_MODEL_REFUSED", f"The quantized graph does not run. {error.message}"
        ) from error
    notes = _notes(scheme, kernels, start.record) + ((start.note,) if start.note else ())
    return QuantizedModel(quantized, scheme, start.record, start.exclusions, kernels, notes)


def _insert_and_count(
    prepared: onnx.ModelProto, record: CalibrationRecord, scheme: QuantizationScheme, excluded: set[str]
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Quantize by the ways out of the integers that the runtime takes; return the graph and its kernels."""
    plain = insert_quantization(prepared, record, scheme, excluded, spread=False)
    try:
        kernels = kernel_counts(plain)
    except EngineError as error:
        raise QuantizationFailed(
            "QUANTIZED_MODEL_REFUSED", f"The quantized graph does not load. {error.message}"
        ) from error
    if takes_part(scheme):
        try:
            better = insert_quantization(prepared, record, scheme, excluded)
            counted = kernel_counts(better)
        except EngineError:
            return plain, kernels
        if counted["float_layers"] <= kernels["float_layers"]:
            return better, counted
    return plain, kernels


def insert_quantization(
    model: onnx.ModelProto,
    record: CalibrationRecord,
    scheme: QuantizationScheme,
    exclude: set[str],
    *,
    spread: bool = True,
) -> onnx.ModelProto:
    """Return ``model`` with Quantize/Dequantize pairs around every node that is not in ``exclude``.

    With ``spread`` outputs that leave the integers keep what they can (see ``integer_outputs``), where the
    scheme takes part.

    Raises:
        QuantizationFailed: QUANTIZER_FAILED, with the quantizer's own words.
    """
    import onnx

    factors: Mapping[str, Any] = {}
    spread = spread and takes_part(scheme)
    if spread:
        model, record, factors = spread_channels(model, record, exclude)
    # What holds infinity has no range; whatever the passes before decided, it cannot be rounded.
    infinite = infinite_tensors(model)
    exclude = exclude | {
        node.name for node in model.graph.node if infinite.intersection([*node.input, *node.output])
    }
    try:
        quantizer = _quantizer(model, record, scheme, exclude)
        quantizer.quantize_model()
        quantized: onnx.ModelProto = quantizer.model.model
        if len(quantized.graph.output) < len(model.graph.output):
            del quantized.graph.output[:]
            quantized.graph.output.extend(model.graph.output)
        sort_nodes(quantized.graph)
        if spread:
            take_back(quantized, factors)
            give_floats(quantized, model, exclude)
        drop_metadata(quantized)
        keep_floats(quantized, exclude)
        onnx.checker.check_model(quantized)
    except Exception as error:  # the quantizer raises whatever its operators raise
        raise QuantizationFailed(
            "QUANTIZER_FAILED",
            f"Quantizing the graph failed: {type(error).__name__}: {str(error).strip()[:400]}. "
            "Exclude the node it names, or export the model with a newer opset.",
        ) from error
    return quantized


def _quantizer(
    model: onnx.ModelProto, record: CalibrationRecord, scheme: QuantizationScheme, exclude: set[str]
) -> Any:
    """Return ONNX Runtime's quantizer of a copy of ``model``, made to do what the scheme says."""
    import numpy as np
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    types = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    given = with_room_for_shares(model, record.ranges)
    if scheme.power_of_two:
        given = {name: rounded_up(found) for name, found in given.items()}
    ranges = {
        name: TensorData(
            lowest=np.float32(found.low), highest=np.float32(max(found.high, found.low + LEAST_RANGE))
        )
        for name, found in given.items()
    }
    make = power_of_two_quantizer if scheme.power_of_two else QDQQuantizer
    copied = copy_of(model)
    # Of an output that is an input the quantizer (1.31) makes a circle: it gets the graph without it.
    read = {value.name for value in model.graph.input}
    for value in [value for value in copied.graph.output if value.name in read]:
        copied.graph.output.remove(value)
    quantizer = make(
        copied,
        scheme.per_channel,
        scheme.reduce_range,
        types[scheme.weight_type],
        types[scheme.activation_type],
        ranges,
        [],
        sorted(exclude),
        sorted(scheme.integer_operators),
        {
            "ActivationSymmetric": scheme.activation_symmetric,
            "WeightSymmetric": scheme.weight_symmetric,
            "TensorQuantOverrides": {**_of_pairs(model, scheme, exclude), **_of_one_scale(model, scheme)},
        },
    )
    quantizer.model = indexed_model(quantizer.model.model)
    return quantizer


def _of_one_scale(model: onnx.ModelProto, scheme: QuantizationScheme) -> dict[str, list[dict[str, Any]]]:
    """Return ONNX Runtime's overrides for weights that a scale per channel does not fit.

    Its kernels take one per column of a matrix on the right. A weight on the left, or one for each of a batch
    of products, gets one scale: the graph would load and fail when it runs. So does a ConvTranspose in
    groups, whose weight has fewer columns than its bias has channels: the quantizer (1.31) stumbles over it.
    """
    if not scheme.per_channel:
        return {}
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    names = {
        name
        for node in model.graph.node
        if node.op_type == "MatMul"
        for place, name in enumerate(node.input)
        if name in ranks and (place == 0 or ranks[name] != 2)
    }
    names |= {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "ConvTranspose" and node.input[1] in ranks and attributes(node).get("group", 1) > 1
    }
    return {name: [{}] for name in sorted(names)}


def _of_pairs(
    model: onnx.ModelProto, scheme: QuantizationScheme, exclude: set[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return ONNX Runtime's overrides for weights whose scales follow from their pairs (see ``grid``).

    Weights that layers read in more than one form keep to 7 bits.
    """
    import numpy as np
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    if not scheme.bounds_pairs:
        return {}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    forms: dict[str, list[LayerForm | None]] = {}
    for node in model.graph.node:
        if node.op_type in scheme.integer_operators and node.name not in exclude:
            for name in node.input[1:2]:
                if name in stored:
                    forms.setdefault(name, []).append(layer_form(node, len(stored[name].dims)))
    overrides = {}
    for name, found in forms.items():
        known = [form for form in found if form is not None]
        turned, groups = {form.turned for form in known}, {form.groups for form in known}
        weight = numpy_helper.to_array(stored[name])
        if len(known) < len(found) or len(turned) > 1 or weight.dtype != np.float32 or not weight.size:
            continue
        axis = int(True in turned)
        in_groups = groups.pop() if len(groups) == 1 else 1
        steps = weight_steps(known[0].rows(weight), scheme, in_groups).reshape(-1).astype(np.float32)
        overrides[name] = [
            {"quant_type": QuantType.QInt8, "axis": axis, "scale": step, "zero_point": np.int8(0)}
            for step in steps
        ]
    return overrides


def _check_quantizable(model: onnx.ModelProto) -> None:
    require_floats(model)
    if not Topology(model.graph).layers:
        raise QuantizationFailed(
            "NOTHING_TO_QUANTIZE",
            "The graph has no Conv, Gemm or MatMul with constant weights in float32: there is nothing to "
            "quantize.",
        )


def _check_rounded(quantized: onnx.ModelProto, exclusions: tuple[Exclusion, ...]) -> None:
    """Refuse to call a graph quantized in which no layer is.

    Raises:
        QuantizationFailed: NOTHING_TO_QUANTIZE.
    """
    topology = Topology(quantized.graph)
    rounded = {
        output
        for node in topology.nodes
        if node.op_type == "DequantizeLinear" and node.input[0] in topology.constants
        for output in node.output
    }
    if any(
        node.op_type in WEIGHTED_OPERATORS and rounded.intersection(node.input) for node in topology.nodes
    ):
        return
    left = sum(len(found.nodes) for found in exclusions)
    operators = sorted(
        {node.op_type for index, node in enumerate(topology.nodes) if topology.is_weighted(index)}
    )
    raise QuantizationFailed(
        "NOTHING_TO_QUANTIZE",
        f"No layer of the graph would be quantized: {left} nodes are left in floating point"
        + (f" ({exclusions[0].reason})" if exclusions else "")
        + f", and its layers are {', '.join(operators) or 'none'}. Quantize Conv, Gemm or MatMul layers, "
        "leave fewer out, or try the passes quantize-dynamic and quantize-weights.",
    )


def _notes(scheme: QuantizationScheme, kernels: dict[str, int], record: CalibrationRecord) -> tuple[str, ...]:
    notes = []
    if kernels["integer_layers"] == 0:
        notes.append(
            f"On this machine the graph runs {kernels['float_layers']} layers on floats and none on "
            "integers: "
            f"{scheme.label} has no kernels here. It was made for the board's profile, not for this CPU."
        )
    if record.samples < 50:
        notes.append(f"Calibrated with {record.samples} samples; 100 and more give steadier ranges.")
    return tuple(notes)
