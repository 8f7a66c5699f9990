"""Pass ``quantize-dynamic``: integer weights now, activation ranges at run time: no calibration needed.

It suits what spends its time in large MatMuls (transformers, recurrent networks) on a CPU. Convolutions
become slower by it: each gets a DynamicQuantizeLinear that reads its whole input once more and a ConvInteger
instead of a fused float kernel. So they are left in floating point unless asked for, and the record says so.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError, QuantizationFailed
from boardwright.compiler.engine.graph.editing import sort_nodes
from boardwright.compiler.engine.graph.inspect import drop_metadata, require_finite_weights
from boardwright.compiler.engine.graph.prepare import prepare_graph, require_floats
from boardwright.compiler.engine.graph.session import kernel_counts, try_beside
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import onnx

_MATRICES = ("MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization")


@dataclass(frozen=True, slots=True)
class DynamicModel:
    """The graph with integer weights. ``layers`` counts by operator what was quantized."""

    model: onnx.ModelProto
    layers: dict[str, int]
    kernels: dict[str, int]
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {"layers": self.layers, "kernels": self.kernels, "notes": list(self.notes)}


def quantize_dynamic(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    *,
    convolutions: bool = False,
    exclude: Iterable[str] = (),
) -> DynamicModel:
    """Make the constant weights of a float32 ``model`` integers; activations are quantized as they come.

    ``scheme`` gives the weights' type, granularity and range; activations are U8 whatever it says, as the
    operators are defined. ``convolutions`` quantizes Conv layers too. ``exclude`` names nodes to leave alone.

    Raises:
        QuantizationFailed: SCHEME_UNFIT, ALREADY_QUANTIZED, NOTHING_TO_QUANTIZE, QUANTIZER_FAILED,
            QUANTIZED_MODEL_REFUSED.
        EngineError: WEIGHTS_NOT_FINITE.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    if scheme.power_of_two:
        raise QuantizationFailed(
            "SCHEME_UNFIT",
            f"{scheme.label} cannot be quantized dynamically: scales that are computed at run time are no "
            "powers of two. Use the pass quantize.",
        )
    prepared = prepare_graph(model)
    require_floats(prepared)
    require_finite_weights(prepared)
    operators = (*_MATRICES, "Conv") if convolutions else _MATRICES
    left_out = set(exclude)
    # Since opset 23 ONNX has an Attention too, without weights: the quantizer takes it for the runtime's own.
    left_out |= {
        node.name
        for node in prepared.graph.node
        if node.op_type == "Attention" and node.domain != "com.microsoft"
    }
    topology = Topology(prepared.graph)
    candidates = [
        node
        for index, node in enumerate(topology.nodes)
        if node.op_type in operators and topology.is_weighted(index) and node.name not in left_out
    ]
    if not candidates:
        raise _nothing()
    add_pre_process_metadata(prepared)  # it is prepared: the quantizer would advise to, in the step's log
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "quantized.onnx"
            quantize(
                prepared,
                path,
                op_types_to_quantize=list(operators),
                per_channel=scheme.per_channel,
                reduce_range=scheme.reduce_range,
                weight_type=QuantType.QInt8 if scheme.weight_type == "int8" else QuantType.QUInt8,
                nodes_to_exclude=sorted(left_out),
                extra_options={"MatMulConstBOnly": True},
            )
            quantized = onnx.load(path)
    except Exception as error:  # the quantizer raises whatever its operators raise
        raise QuantizationFailed(
            "QUANTIZER_FAILED",
            f"Dynamic quantization failed: {type(error).__name__}: {str(error).strip()[:400]}. "
            "Exclude the node it names.",
        ) from error
    drop_metadata(quantized)
    sort_nodes(quantized.graph)
    layers = _rounded(candidates, prepared, quantized)
    if not layers:
        raise _nothing()
    try:
        kernels = kernel_counts(quantized)
        try_beside(quantized, prepared)
    except EngineError as error:
        raise QuantizationFailed(
            "QUANTIZED_MODEL_REFUSED", f"The quantized graph does not load or run. {error.message}"
        ) from error
    return DynamicModel(quantized, dict(layers), kernels, _notes(topology, layers, convolutions))


def _rounded(
    candidates: Iterable[onnx.NodeProto], prepared: onnx.ModelProto, quantized: onnx.ModelProto
) -> Counter[str]:
    """Count by operator the layers whose float weights are gone: the quantizer passes over some of them.

    It leaves alone a weight on the left of a MatMul, a Gemm over a transposed activation, a recurrent layer
    that is no LSTM.
    """
    import onnx

    floats = {
        tensor.name
        for tensor in quantized.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1
    }
    matrices = {tensor.name for tensor in prepared.graph.initializer if len(tensor.dims) > 1}
    return Counter(node.op_type for node in candidates if matrices.intersection(node.input) - floats)


def _nothing() -> QuantizationFailed:
    return QuantizationFailed(
        "NOTHING_TO_QUANTIZE",
        "The graph has no MatMul, Gemm or LSTM with constant weights that become integers. Convolutional "
        "networks gain by the pass quantize, whose activation ranges are known before.",
    )


def _notes(topology: Topology, layers: Counter[str], convolutions: bool) -> tuple[str, ...]:
    convs = sum(
        node.op_type == "Conv" and topology.is_weighted(index) for index, node in enumerate(topology.nodes)
    )
    if convs and convolutions:
        return (
            f"{layers['Conv']} convolutions are quantized as they run: each reads its input twice, and CPUs "
            "without a kernel for ConvInteger are many times slower by it. Measure it beside FP32.",
        )
    if convs > sum(layers.values()):
        return (
            f"{convs} convolutions stay in floating point, {sum(layers.values())} other layers were "
            "quantized: this network gains by the pass quantize, whose activation ranges are known before.",
        )
    return ()
