"""ONNX Runtime sessions whose threads are set, and what their optimised graph really runs."""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.canonical import unshare_quantization

if TYPE_CHECKING:
    import onnx

INTEGER_KERNELS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "MatMulNBits",
        "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention",
    }
)  # fmt: skip
FLOAT_KERNELS = frozenset(
    {
        "Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose",
        "LSTM", "GRU", "RNN", "Einsum", "Attention", "MultiHeadAttention",
    }
)  # fmt: skip
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})

_EXACT_PRODUCTS = "session.x64quantprecision"
"""Without VNNI, x86 sums pairs of U8S8 products in 16 bits, which saturates. This makes ONNX Runtime take
another kernel there, so that quality is judged by the arithmetic of the board that a graph is meant for."""

_CONVERTED_TWICE = "Attempt to replace the existing tensor"
"""What ONNX Runtime 1.31 fails with when that other kernel is taken for two layers that share a weight, or
for two products of int8 activations that share a zero point (queries and keys, say): such a graph is opened
with constants apart, and without that kernel where even this does not help."""


def open_session(
    model: onnx.ModelProto | Path,
    *,
    threads: int = 0,
    level: str = "all",
    optimized_path: Path | None = None,
    disabled: tuple[str, ...] = (),
    profile_prefix: Path | None = None,
    exact: bool = True,
    in_order: bool = False,
) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on the CPU, whose ``run`` raises EngineError (MODEL_FAILED).

    Of a feed ``run`` takes the entries that are inputs of the graph, and no others.
    ``threads`` 0 leaves the runtime's default. ``level`` is ``none``, ``basic`` (hardware-neutral),
    ``extended`` (fusions) or ``all`` (this CPU's layouts as well). ``disabled`` names optimisations of the
    runtime that are left out (``ConvBNFusion``). With ``profile_prefix`` the session records a trace, whose
    path ``end_profiling()`` returns. ``exact`` False takes the kernels of a deployed session, for timing.

    Raises:
        EngineError: RUNTIME_REFUSED, when the runtime does not accept the graph; its own words are repeated.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, and told once
    options.intra_op_num_threads = threads
    if exact:
        options.add_session_config_entry(_EXACT_PRODUCTS, "1")
    levels = {
        "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }
    options.graph_optimization_level = levels[level]
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    if in_order:
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    left_out = {"disabled_optimizers": list(disabled)} if disabled else {}
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return _session_class()(source, options, providers=["CPUExecutionProvider"], **left_out)
    except Exception as error:  # the runtime's exceptions share no base class of their own
        text = str(error).strip()
        if exact and _CONVERTED_TWICE in text:
            again: dict[str, Any] = {
                "threads": threads, "level": level, "optimized_path": optimized_path, "disabled": disabled,
                "profile_prefix": profile_prefix, "in_order": in_order,
            }  # fmt: skip
            given = onnx.load(model) if isinstance(model, Path) else model
            apart = unshare_quantization(given)
            if len(apart.graph.initializer) > len(given.graph.initializer):
                return open_session(apart, **again)
            return open_session(model, exact=False, **again)
        raise EngineError(
            "RUNTIME_REFUSED",
            f"ONNX Runtime {onnxruntime.__version__} does not accept the graph: "
            f"{text.splitlines()[0][:400].rstrip('. ') if text else type(error).__name__}. A checkpoint that "
            "it refuses has to be exported anew, without what it names or with another opset, and in float32 "
            "if it was quantized; where a pass made the graph, give that pass the node it names in exclude.",
        ) from error


@cache
def _session_class() -> Any:
    import onnxruntime

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]  # the runtime has no types
        """A session that takes of a feed what it reads, and whose failures are the engine's."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._read = frozenset(value.name for value in self.get_inputs())

        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            given = {name: value for name, value in input_feed.items() if name in self._read}
            try:
                return super().run(output_names, given, run_options)
            except Exception as error:  # the runtime's exceptions share no base class of their own
                text = " ".join(str(error).split())
                raise EngineError(
                    "MODEL_FAILED",
                    f"The graph loads and fails when it runs: {text[:400] or type(error).__name__}. Check "
                    "the inputs it is fed and the node it names; if memory ran out, use smaller inputs.",
                ) from error

    return Session


def try_out(model: onnx.ModelProto) -> None:
    """Run ``model`` once on zeros, of length 1 along free axes.

    Raises:
        EngineError: RUNTIME_REFUSED or MODEL_FAILED.
    """
    import numpy as np

    from boardwright.compiler.engine.graph.inspect import graph_inputs

    zeros = {
        name: np.zeros([axis if isinstance(axis, int) else 1 for axis in shape], dtype)
        for name, (shape, dtype) in graph_inputs(model).items()
    }
    open_session(model).run(None, zeros)


def try_beside(made: onnx.ModelProto, given: onnx.ModelProto) -> None:
    """Run ``made`` once on zeros; what it was made of, ``given``, may not bear zeros either.

    Raises:
        EngineError: RUNTIME_REFUSED or MODEL_FAILED, of ``made`` alone.
    """
    try:
        try_out(made)
    except EngineError:
        try:
            try_out(given)
        except EngineError:
            return  # zeros are no input for this network: nothing is known
        raise


def kernel_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Count what the fully optimised graph runs: integer and float layers, and conversions between them.

    QDQ nodes in the file say nothing: S8S8 graphs fall back to float Convs on x86.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(model, level="all", optimized_path=path)
        operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    return {
        "integer_layers": sum(operators[name] for name in INTEGER_KERNELS),
        "float_layers": sum(operators[name] for name in FLOAT_KERNELS),
        "conversions": sum(operators[name] for name in CONVERSIONS),
    }
