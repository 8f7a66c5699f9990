"""``onnxruntime``: an ONNX file for ONNX Runtime, fused ahead of time.

The graph is loaded by the real runtime at its level "extended" and written back. That level holds
everything that does not depend on the processor's cache or vector width (constant folding, Conv with its
activation, quantize/dequantize pairs to integer kernels); the layout level (NCHWc blocks) depends on them
and is left to the device's own load. Written as ONNX, the result is the same bytes every time.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from boardwright.content.oci import GRAPH_MEDIA_TYPE
from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.graph import GraphFacts, load_graph, read_graph
from boardwright.toolchains.ort_session import (
    OrtSession,
    open_session,
    runtime_settings,
    runtime_version,
    session_options,
    start,
)
from boardwright.toolchains.port import (
    Availability,
    BuildRequest,
    BuiltFile,
    BuiltModel,
    Session,
    Toolchain,
)

MODEL_FILE = "model.onnx"

_INTEGER_KERNELS = (
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "MatMulInteger",
    "ConvInteger",
    "DynamicQuantizeMatMul",
)
_MISSING = "ONNX Runtime is not installed; install the package onnxruntime in the worker's environment."


class OrtToolchain(Toolchain):
    """What both ways to build for ONNX Runtime share: they differ in the file that they write."""

    runtime = "onnxruntime"

    def availability(self) -> Availability:
        version = runtime_version()
        return Availability(version, "" if version else _MISSING)

    def open(self, built: BuiltModel, threads: int) -> OrtSession:
        self._require_runtime()
        return open_session(built.entry_path, built.runtime_settings, threads)

    def open_alternatives(self, graph: Path, built: BuiltModel) -> tuple[Session, ...]:
        """Open the graph as it was given: node by node, and fused for this very machine."""
        return (
            open_session(graph, runtime_settings("disabled"), threads=1),
            open_session(graph, runtime_settings("all"), threads=2),
        )

    def _require_runtime(self) -> None:
        missing = self.availability().waits_for
        if missing:
            raise ToolchainError("BUILD_FAILED", missing)

    def _built(
        self, request: BuildRequest, facts: GraphFacts, file: BuiltFile, kernels: Counter[str]
    ) -> BuiltModel:
        integer = sum(kernels[name] for name in _INTEGER_KERNELS)
        return BuiltModel(
            files=(file,),
            entry=file.name,
            runtime=self.runtime,
            runtime_version=runtime_version(),
            runtime_settings=runtime_settings(),
            kernels=dict(sorted(kernels.items())),
            integer_kernels=integer,
            cpu_features=needed_cpu_features(facts, request.architecture),
            warnings=_float_compute_warnings(facts, integer),
        )


class OnnxRuntimeToolchain(OrtToolchain):
    """Builds ``model.onnx`` for ONNX Runtime's CPU kernels."""

    name = "onnxruntime"
    architectures = ("x86_64", "aarch64")
    option_values = {"optimization": ("extended", "basic", "none")}

    def vendor_commands(self, request: BuildRequest) -> tuple[tuple[str, ...], ...]:
        optimization = self.checked_options(request)["optimization"]
        level = "disable" if optimization == "none" else optimization
        written = request.output_dir / MODEL_FILE
        tool = ("python", "-m", "onnxruntime.tools.optimize_onnx_model")
        return ((*tool, "--opt_level", level, str(request.graph), str(written)),)

    def build(self, request: BuildRequest) -> BuiltModel:
        optimization = self.checked_options(request)["optimization"]
        self._require_runtime()
        facts = read_graph(request.graph)
        written = request.output_dir / MODEL_FILE
        if optimization == "none":
            start(request.graph, session_options("disabled"))  # refuses what the runtime cannot load
            written.write_bytes(request.graph.read_bytes())
        else:
            save_optimized(request.graph, written, optimization, "ONNX", request.architecture)
        kernels = Counter(node.op_type for node in load_graph(written).graph.node)
        return self._built(request, facts, BuiltFile(MODEL_FILE, written, GRAPH_MEDIA_TYPE), kernels)


def save_optimized(graph: Path, written: Path, level: str, file_format: str, architecture: str) -> None:
    """Let ONNX Runtime optimise ``graph`` at ``level`` and write it as ``ONNX`` or ``ORT``.

    For Arm the int8 kernels stay signed. For x86 ONNX Runtime turns signed activations and weights into
    U8S8, the only pair its x86 kernels are fast at: an S8S8 graph saved with the Arm setting ran 13 times
    slower there. NCHWc blocks are left out: their width is the building machine's own.

    Raises:
        ToolchainError: GRAPH_UNREADABLE, GRAPH_UNSUPPORTED, BUILD_FAILED.
    """
    options = session_options(level)
    options.optimized_model_filepath = str(written)
    options.add_session_config_entry("session.save_model_format", file_format)
    options.add_session_config_entry("session.qdqisint8allowed", "1" if architecture == "aarch64" else "0")
    start(graph, options, disabled_optimizers=["NchwcTransformer"])
    if not written.is_file():
        raise ToolchainError("BUILD_FAILED", f"ONNX Runtime {runtime_version()} wrote no {file_format} file.")


def needed_cpu_features(facts: GraphFacts, architecture: str) -> tuple[str, ...]:
    """Return the processor features the artifact needs to be right.

    On x86 without VNNI, ONNX Runtime adds pairs of uint8 × int8 products in 16 bits, which saturates where
    pairs of weights are too large (ONNX Runtime, "Quantize ONNX models", section on reduce_range).
    """
    precision = facts.precision
    integer_compute = precision.quantized > 0 and precision.wide_weights and "int8" in precision.weight_types
    return ("vnni",) if architecture == "x86_64" and integer_compute else ()


def _float_compute_warnings(facts: GraphFacts, integer: int) -> tuple[str, ...]:
    """Tell when a quantized graph runs more of its heavy operators in float than it was quantized for."""
    if integer >= facts.precision.quantized:
        return ()
    return (
        f"The graph has {facts.precision.quantized} quantized Conv, Gemm and MatMul operators, but the "
        f"runtime runs only {integer} with integer kernels; the rest compute in float between conversions "
        "and gain no speed. Quantize by the board's profile.",
    )
