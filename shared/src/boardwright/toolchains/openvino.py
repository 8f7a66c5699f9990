"""``openvino``: OpenVINO's intermediate representation (IR), for x86-64 CPUs.

OpenVINO's ONNX reader turns Quantize/Dequantize pairs into its own FakeQuantize; which layers then compute
with integers is decided when the device loads the model, by its CPU. The IR holds nothing of the building
machine's CPU.

Layers that the reader adds are named by a counter of the process, so that the same graph gives other bytes
each time; here they are named by their place in the graph.

Sources: OpenVINO documentation, "OpenVINO Low Precision Transformations" and "Saturation (overflow) Issue
Workaround".
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.content.oci import ENGINE_MEDIA_TYPE, WEIGHTS_MEDIA_TYPE
from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.graph import GraphFacts, load_graph, read_graph
from boardwright.toolchains.onnx_runtime import needed_cpu_features
from boardwright.toolchains.openvino_graph import fuse_activations
from boardwright.toolchains.openvino_session import (
    MISSING,
    OpenVinoSession,
    import_openvino,
    open_session,
    plain,
    runtime_settings,
    runtime_version,
)
from boardwright.toolchains.port import (
    Availability,
    BuildRequest,
    BuiltFile,
    BuiltModel,
    Session,
    Toolchain,
)

if TYPE_CHECKING:
    import onnx

MODEL_FILE = "model.xml"
WEIGHTS_FILE = "model.bin"

_HEAVY = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
_NOT_RUN = ("Input", "Output", "Const")
_INTEGERS = ("u8", "i8")
_SHOWN_LAYERS = 5


class OpenVinoToolchain(Toolchain):
    """Builds ``model.xml`` with its weights in ``model.bin``."""

    name = "openvino"
    runtime = "openvino"
    architectures = ("x86_64",)
    option_values = {"activations": ("fused", "as-quantized")}

    def availability(self) -> Availability:
        version = runtime_version()
        return Availability(version, "" if version else MISSING)

    def vendor_commands(self, request: BuildRequest) -> tuple[tuple[str, ...], ...]:
        self.checked_options(request)
        written = request.output_dir / MODEL_FILE
        return (("ovc", str(request.graph), "--output_model", str(written), "--compress_to_fp16=False"),)

    def build(self, request: BuildRequest) -> BuiltModel:
        fuses = self.checked_options(request)["activations"] == "fused"
        openvino = import_openvino()
        facts = read_graph(request.graph)
        graph = load_graph(request.graph)
        fused = fuse_activations(graph) if fuses else ()
        written, weights = request.output_dir / MODEL_FILE, request.output_dir / WEIGHTS_FILE
        model = _read(openvino.Core(), graph)
        name_layers(model, _names(graph.graph))
        openvino.save_model(model, str(written), compress_to_fp16=False)
        session = open_session(written, runtime_settings(), threads=1)
        _check_ports(session, facts)
        layers = [layer for layer in session.layers() if layer[0] not in _NOT_RUN]
        kernels = Counter(f"{kind}:{_shown(precision)}" for kind, precision, _ in layers)
        return BuiltModel(
            files=(
                BuiltFile(MODEL_FILE, written, ENGINE_MEDIA_TYPE),
                BuiltFile(WEIGHTS_FILE, weights, WEIGHTS_MEDIA_TYPE),
            ),
            entry=MODEL_FILE,
            runtime=self.runtime,
            runtime_version=runtime_version(),
            runtime_settings=runtime_settings(),
            kernels=dict(sorted(kernels.items())),
            integer_kernels=sum(kernels[f"{kind}:int8"] for kind in _HEAVY),
            # Its integer kernels add in 16 bits without VNNI as well: 8-bit weights saturate there.
            cpu_features=needed_cpu_features(facts, request.architecture),
            warnings=_float_layers(facts, layers),
            notes=_fused_note(fused),
        )

    def open(self, built: BuiltModel, threads: int) -> OpenVinoSession:
        return open_session(built.entry_path, built.runtime_settings, threads)

    def open_alternatives(self, graph: Path, built: BuiltModel) -> tuple[Session, ...]:
        """Open the same model without integer kernels, and without kernels that are compiled at load."""
        return tuple(
            open_session(built.entry_path, {**built.runtime_settings, "plugin_config": config}, 2)
            for config in ({"LP_TRANSFORMS_MODE": "NO"}, {"SNIPPETS_MODE": "DISABLE"})
        )


def name_layers(model: Any, known: frozenset[str]) -> None:
    """Name the layers of an OpenVINO model, bodies of loops and branches included, by their place in it.

    Only those change that carry their kind and a counter and are not ``known`` from the ONNX graph.
    """
    for index, layer in enumerate(model.get_ordered_ops()):
        name, kind = layer.get_friendly_name(), layer.get_type_name()
        if name not in known and re.fullmatch(rf"{re.escape(kind)}_\d+", name):
            layer.set_friendly_name(f"{kind}#{index}")
        for body in _bodies(layer):
            name_layers(body, known)


def _bodies(layer: Any) -> list[Any]:
    if layer.get_type_name() == "If":
        return [layer.get_function(0), layer.get_function(1)]
    if layer.get_type_name() in ("Loop", "TensorIterator"):
        return [layer.get_function()]
    return []


def _names(graph: onnx.GraphProto) -> frozenset[str]:
    found = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        found.update((node.name, *node.output))
    return frozenset(found)


def _read(core: Any, graph: onnx.ModelProto) -> Any:
    """Read an ONNX graph.

    Raises:
        ToolchainError: GRAPH_UNSUPPORTED, BUILD_FAILED.
    """
    try:
        return core.read_model(graph.SerializeToString())
    except RuntimeError as error:
        text = plain(error)
        unknown = "No conversion rule" in text or "not supported" in text.lower()
        reason = "GRAPH_UNSUPPORTED" if unknown else "BUILD_FAILED"
        told = f"OpenVINO {runtime_version()} does not take this graph: {text}"
        raise ToolchainError(reason, told) from error


def _check_ports(session: OpenVinoSession, facts: GraphFacts) -> None:
    """Refuse a model whose inputs or outputs are not the graph's: devices feed and read them by name.

    Raises:
        ToolchainError: BUILD_FAILED.
    """
    for what, wanted, made in (
        ("inputs", facts.inputs, tuple(info.name for info in session.inputs)),
        ("outputs", facts.outputs, tuple(info.name for info in session.outputs)),
    ):
        if wanted != made:
            raise ToolchainError(
                "BUILD_FAILED",
                f"OpenVINO's model has the {what} {', '.join(made)} instead of {', '.join(wanted)}. Build "
                "with another toolchain of the board.",
            )


def _shown(precision: str) -> str:
    return "int8" if precision in _INTEGERS else precision


def _fused_note(fused: tuple[str, ...]) -> tuple[str, ...]:
    if not fused:
        return ()
    return (
        f"{len(fused)} tensors between an operator and its activation are not quantized here, unlike in the "
        "variant: OpenVINO computes both in one kernel. Its results lie nearer to the float graph's.",
    )


def _float_layers(facts: GraphFacts, layers: list[tuple[str, str, str]]) -> tuple[str, ...]:
    """Tell which heavy layers of a quantized graph compute in float on this CPU."""
    heavy = [layer for layer in layers if layer[0] in _HEAVY]
    floats = [names or kind for kind, precision, names in heavy if precision not in _INTEGERS]
    integer = len(heavy) - len(floats)
    if not facts.precision.quantized or integer >= facts.precision.quantized:
        return ()
    shown = "; ".join(floats[:_SHOWN_LAYERS])
    more = f" and {len(floats) - _SHOWN_LAYERS} more" if len(floats) > _SHOWN_LAYERS else ""
    return (
        f"The graph has {facts.precision.quantized} quantized Conv, Gemm and MatMul operators, but OpenVINO "
        f"runs only {integer} with integer kernels here; these compute in float: {shown}{more}.",
    )
