"""Pack the weights of a graph's MatMuls through ONNX Runtime's quantizers, and check what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError, QuantizationFailed
from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.graph.canonical import fold_gemm_factors
from boardwright.compiler.engine.graph.editing import copy_of, with_outputs
from boardwright.compiler.engine.graph.inspect import drop_metadata, require_finite_weights
from boardwright.compiler.engine.graph.prepare import name_nodes, raise_opset
from boardwright.compiler.engine.graph.session import open_session, try_beside
from boardwright.compiler.engine.sqnr import SqnrMeter
from boardwright.compiler.engine.weight_only.awq import ScaleSearch, scale_weights
from boardwright.compiler.engine.weight_only.layers import (
    Layer,
    find_layers,
    gemms_to_matmuls,
    weight_values,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx

ALGORITHMS: Mapping[str, frozenset[int]] = {
    "rtn": frozenset({4, 8}),
    "hqq": frozenset({4}),
    "k-quant": frozenset({4}),
    "gptq": frozenset({4}),
    "awq": frozenset({4, 8}),
}
"""Algorithms and the widths that ONNX Runtime's quantizers have for them."""

_ASYMMETRIC = frozenset({"hqq", "k-quant"})
_NEED_SAMPLES = frozenset({"gptq", "awq"})
_ROWS = 512
_BLOCK_SIZES = (16, 32, 64, 128, 256)
_SMALLEST_ROWS = 16
_INT8_COMPUTE = 4


@dataclass(frozen=True, slots=True)
class WeightOnlyOptions:
    """How weights are packed.

    ``bits`` is 4 or 8, ``block_size`` how many weights along K share a scale (16, 32, 64, 128 or 256).
    ``algorithm`` is one of ``ALGORITHMS``. ``symmetric`` leaves zero points out. ``integer_compute`` lets the
    kernel round activations to 8 bits as it multiplies: faster where the CPU has integer dot products, a
    little less exact. ``exclude`` names MatMuls that keep their weights.
    """

    bits: int = 4
    block_size: int = 32
    algorithm: str = "rtn"
    symmetric: bool = False
    integer_compute: bool = False
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise QuantizationFailed(
                "ALGORITHM_UNKNOWN",
                f"There is no weight-only algorithm {self.algorithm!r}: choose one of "
                f"{', '.join(ALGORITHMS)}.",
            )
        if self.bits not in ALGORITHMS[self.algorithm]:
            widths = " or ".join(map(str, sorted(ALGORITHMS[self.algorithm])))
            raise QuantizationFailed(
                "WIDTH_UNSUPPORTED",
                f"{self.algorithm} packs weights to {widths} bits here, not to {self.bits}.",
            )
        if self.block_size not in _BLOCK_SIZES:
            sizes = ", ".join(map(str, _BLOCK_SIZES))
            raise QuantizationFailed(
                "BLOCK_SIZE_UNSUPPORTED", f"A block has {sizes} weights, not {self.block_size}."
            )
        if self.algorithm in _ASYMMETRIC and self.symmetric:
            raise QuantizationFailed(
                "SYMMETRY_UNSUPPORTED",
                f"{self.algorithm} searches the zero point, so it has no symmetric form: use rtn or awq.",
            )


@dataclass(frozen=True, slots=True)
class WeightOnlyModel:
    """The packed graph and how it came about.

    ``layers`` are the nodes that were packed, ``left_out`` those that were not with the reason. Sizes are
    of all initializers, in bytes. ``output_sqnr_db`` is the signal over the error of the output that
    lost most, on the samples; None without samples, and where no output holds floats.
    """

    model: onnx.ModelProto
    options: WeightOnlyOptions
    layers: tuple[str, ...]
    left_out: Mapping[str, str]
    weight_bytes_before: int
    weight_bytes_after: int
    output_sqnr_db: float | None
    scales: tuple[ScaleSearch, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            **asdict(self.options),
            "layers": list(self.layers),
            "left_out": dict(self.left_out),
            "weight_bytes_before": self.weight_bytes_before,
            "weight_bytes_after": self.weight_bytes_after,
            "output_sqnr_db": self.output_sqnr_db,
            "scales": [asdict(found) for found in self.scales],
        }


def quantize_weights(
    model: onnx.ModelProto,
    options: WeightOnlyOptions,
    feeds: Iterable[Feed] = (),
    *,
    on_sample: Callable[[int], None] = lambda _: None,
) -> WeightOnlyModel:
    """Pack the weights of the MatMuls and Gemms of a float32 ``model``.

    ``feeds`` are preprocessed inputs: gptq and awq learn from them, and the output error is measured on them.

    Raises:
        QuantizationFailed: NOTHING_TO_QUANTIZE, SAMPLES_MISSING, NODE_UNKNOWN, QUANTIZER_FAILED,
            QUANTIZED_MODEL_REFUSED.
        EngineError: WEIGHTS_NOT_FINITE.
    """
    require_finite_weights(model)
    source = copy_of(raise_opset(model))
    name_nodes(source.graph)
    fold_gemm_factors(source.graph)
    gemms_to_matmuls(source)
    layers, left_out = _choose(source, options)
    samples = list(feeds)
    if options.algorithm in _NEED_SAMPLES and not samples:
        raise QuantizationFailed(
            "SAMPLES_MISSING",
            f"{options.algorithm} learns from calibration samples: name a sealed calibration dataset, or use "
            "rtn.",
        )
    packed = copy_of(source)  # the quantizers change what they are given
    scales: list[ScaleSearch] = []
    if options.algorithm == "awq":
        rows = _sample_rows(source, {layer.reads for layer in layers}, samples, on_sample)
        scales = scale_weights(
            packed, layers, rows,
            bits=options.bits, block_size=options.block_size, symmetric=options.symmetric,
        )  # fmt: skip
    packed = _pack(packed, options, [layer.node for layer in layers], samples)
    drop_metadata(packed)
    try:
        session = open_session(packed)
        if not samples:
            try_beside(packed, source)
    except EngineError as error:
        raise QuantizationFailed(
            "QUANTIZED_MODEL_REFUSED", f"The graph with packed weights does not load or run. {error.message}"
        ) from error
    return WeightOnlyModel(
        packed,
        options,
        tuple(layer.node for layer in layers),
        left_out,
        _weight_bytes(source),
        _weight_bytes(packed),
        _output_sqnr_db(open_session(source), session, samples) if samples else None,
        tuple(scales),
    )


def _choose(model: onnx.ModelProto, options: WeightOnlyOptions) -> tuple[list[Layer], dict[str, str]]:
    layers = find_layers(model)
    known = {layer.node for layer in layers}
    for name in options.exclude:
        if name not in known:
            raise QuantizationFailed(
                "NODE_UNKNOWN",
                f"There is no MatMul {name!r} with constant weights to leave out; there are "
                f"{', '.join(sorted(known)[:5])}{'…' if len(known) > 5 else ''}.",
            )
    shapes = {name: values.shape for name, values in weight_values(model).items()}
    left_out = dict.fromkeys(options.exclude, "The recipe names it.")
    for layer in layers:
        if shapes[layer.weight][0] < _SMALLEST_ROWS:
            left_out[layer.node] = (
                f"It has {shapes[layer.weight][0]} input channels: scales would take more room than is saved."
            )
        elif _odd_blocks(options) and -(-shapes[layer.weight][0] // options.block_size) % 2:
            left_out[layer.node] = (
                f"Its {shapes[layer.weight][0]} input channels make an odd number of blocks, which "
                f"{options.algorithm} cannot store: a smaller block_size or rtn packs it."
            )
    chosen = [layer for layer in layers if layer.node not in left_out]
    if not chosen:
        if left_out:
            node, reason = next(iter(left_out.items()))
            raise QuantizationFailed(
                "NOTHING_TO_QUANTIZE",
                f"None of the {len(layers)} MatMuls with constant weights can be packed so. "
                f"{node!r}: {reason}",
            )
        raise QuantizationFailed(
            "NOTHING_TO_QUANTIZE",
            "The graph has no MatMul or Gemm with constant float32 weights to pack. Convolutional networks "
            "gain by the pass quantize, which makes activations integers too.",
        )
    return chosen, left_out


def _odd_blocks(options: WeightOnlyOptions) -> bool:
    """Tell whether the algorithm stores two zero points in a byte without filling up the last one."""
    return options.algorithm == "k-quant" or (options.algorithm == "gptq" and not options.symmetric)


def _pack(
    model: onnx.ModelProto, options: WeightOnlyOptions, nodes: Sequence[str], samples: Sequence[Feed]
) -> onnx.ModelProto:
    import contextlib
    import io
    import logging
    import warnings

    logging.getLogger("neural_compressor").setLevel(logging.ERROR)
    pack = _pack_by_samples if options.algorithm == "gptq" else _pack_alone
    try:
        # Some of the quantizers print bars of their own and warn of their own arrays.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pack(model, options, set(nodes), samples)
    except Exception as error:  # the quantizers raise whatever their NumPy raises
        raise QuantizationFailed(
            "QUANTIZER_FAILED",
            f"Packing the weights with {options.algorithm} failed: {type(error).__name__}: "
            f"{str(error).strip()[:400]}. Try rtn, or exclude the node it names.",
        ) from error


def _pack_alone(
    model: onnx.ModelProto, options: WeightOnlyOptions, nodes: set[str], samples: Sequence[Feed]
) -> onnx.ModelProto:
    import logging

    from onnxruntime.quantization import matmul_nbits_quantizer as ort

    logging.getLogger(ort.__name__).setLevel(logging.ERROR)
    level = _INT8_COMPUTE if options.integer_compute else 0
    config: Any
    if options.algorithm == "hqq":
        config = ort.HQQWeightOnlyQuantConfig(block_size=options.block_size, bits=options.bits)
    elif options.algorithm == "k-quant":
        config = ort.KQuantWeightOnlyQuantConfig()
    else:
        config = ort.DefaultWeightOnlyQuantConfig(
            block_size=options.block_size,
            is_symmetric=options.symmetric,
            accuracy_level=level,
            bits=options.bits,
        )
    quantizer = ort.MatMulNBitsQuantizer(
        model,
        bits=options.bits,
        block_size=options.block_size,
        is_symmetric=options.symmetric,
        accuracy_level=level,
        nodes_to_exclude=_other_matmuls(model, nodes),
        algo_config=config,
    )
    quantizer.process()
    packed: onnx.ModelProto = quantizer.model.model
    return packed


def _pack_by_samples(
    model: onnx.ModelProto, options: WeightOnlyOptions, nodes: set[str], samples: Sequence[Feed]
) -> onnx.ModelProto:
    from onnxruntime.quantization.neural_compressor import gptq_quantize

    config: dict[str, Any] = dict.fromkeys(_other_matmuls(model, nodes), "fp32")
    scheme = "sym" if options.symmetric else "asym"
    config |= {
        name: {"bits": options.bits, "group_size": options.block_size, "scheme": scheme} for name in nodes
    }
    done = gptq_quantize(
        model,
        [(dict(feed), None) for feed in samples],
        weight_config=config,
        n_samples=-1,
        blocksize=options.block_size,
        accuracy_level=_INT8_COMPUTE if options.integer_compute else 0,
    )
    packed: onnx.ModelProto = done.model
    # It goes through its layers in the order of a set: in each process another one.
    ordered = sorted(packed.graph.initializer, key=lambda tensor: tensor.name)
    del packed.graph.initializer[:]
    packed.graph.initializer.extend(ordered)
    return packed


def _other_matmuls(model: onnx.ModelProto, nodes: set[str]) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in nodes]


def _sample_rows(
    model: onnx.ModelProto, tensors: set[str], samples: Sequence[Feed], on_sample: Callable[[int], None]
) -> dict[str, np.ndarray[Any, Any]]:
    """Return up to ``_ROWS`` rows of each tensor, evenly spread over the samples, float32 [rows, K]."""
    import numpy as np

    inner = sorted(tensors - {value.name for value in model.graph.input})
    session = open_session(with_outputs(model, inner))
    rows: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in tensors}
    share = max(1, _ROWS // len(samples))
    for number, feed in enumerate(samples, start=1):
        found = dict(zip(inner, session.run(inner, dict(feed)), strict=True)) if inner else {}
        found.update({name: feed[name] for name in tensors if name in feed})
        for name, values in found.items():
            flat = values.reshape(-1, values.shape[-1]).astype(np.float32)
            picked = np.linspace(0, len(flat) - 1, min(share, len(flat))).astype(int)
            rows[name].append(flat[picked])
        on_sample(number)
    return {name: np.concatenate(parts)[:_ROWS] for name, parts in rows.items() if parts}


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(tensor.ByteSize() for tensor in model.graph.initializer)


def _output_sqnr_db(reference: Any, packed: Any, samples: Sequence[Feed]) -> float | None:
    names = [value.name for value in reference.get_outputs()]
    meter = SqnrMeter()
    for feed in samples:
        exact, found = reference.run(names, dict(feed)), packed.run(names, dict(feed))
        meter.add(dict(zip(names, found, strict=True)), dict(zip(names, exact, strict=True)))
    if not meter.is_finite:
        raise QuantizationFailed(
            "QUANTIZED_MODEL_REFUSED",
            "With packed weights the outputs become NaN or infinite: use 8 bits or rtn.",
        )
    return min(meter.sqnr_db().values(), default=None)
