"""``ort-format``: ONNX Runtime's own flatbuffer, for Arm boards and small builds of the runtime.

It does what ``python -m onnxruntime.tools.convert_onnx_models_to_ort --optimization_style Fixed
--target_platform arm`` does, through the same session options. ONNX Runtime writes weights and names in
the order of a hash table, so that the same graph gives other bytes each time; ``ort_flatbuffer`` brings
them into one order.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from boardwright.content.oci import ENGINE_MEDIA_TYPE
from boardwright.toolchains.graph import read_graph
from boardwright.toolchains.onnx_runtime import (
    float_compute_warnings,
    integer_kernels,
    needed_cpu_features,
    other_kernels,
    require_runtime,
    save_optimized,
)
from boardwright.toolchains.ort_flatbuffer import canonical, operators
from boardwright.toolchains.ort_session import OrtSession, open_session, runtime_settings, runtime_version
from boardwright.toolchains.port import (
    Availability,
    BuildRequest,
    BuiltFile,
    BuiltModel,
    Session,
    Toolchain,
)

MODEL_FILE = "model.ort"

_PLATFORMS = {"aarch64": "arm", "x86_64": "amd64"}


class OrtFormatToolchain(Toolchain):
    """Builds ``model.ort``, optimised ahead of time."""

    name = "ort-format"
    runtime = "onnxruntime"
    architectures = ("aarch64", "x86_64")

    def availability(self) -> Availability:
        version = runtime_version()
        return Availability(version, "" if version else "ONNX Runtime is not installed; install onnxruntime.")

    def vendor_commands(self, request: BuildRequest) -> tuple[tuple[str, ...], ...]:
        self.checked_options(request)
        return (
            (
                *("python", "-m", "onnxruntime.tools.convert_onnx_models_to_ort"),
                *("--optimization_style", "Fixed"),
                *("--target_platform", _PLATFORMS[request.architecture]),
                *("--output_dir", str(request.output_dir)),
                str(request.graph),
            ),
        )

    def build(self, request: BuildRequest) -> BuiltModel:
        self.checked_options(request)
        require_runtime(self)
        facts = read_graph(request.graph)
        written = request.output_dir / MODEL_FILE
        save_optimized(request.graph, written, "all", "ORT", request.architecture)
        content = canonical(written.read_bytes())
        written.write_bytes(content)
        kernels = Counter(operators(content))
        return BuiltModel(
            files=(BuiltFile(MODEL_FILE, written, ENGINE_MEDIA_TYPE),),
            entry=MODEL_FILE,
            runtime=self.runtime,
            runtime_version=runtime_version(),
            runtime_settings=runtime_settings(),
            kernels=dict(sorted(kernels.items())),
            integer_kernels=integer_kernels(kernels),
            cpu_features=needed_cpu_features(facts, request.architecture),
            warnings=float_compute_warnings(facts, kernels),
        )

    def open(self, built: BuiltModel, threads: int) -> OrtSession:
        require_runtime(self)
        return open_session(built.entry_path, built.runtime_settings, threads)

    def open_alternatives(self, graph: Path, built: BuiltModel) -> tuple[Session, ...]:
        return other_kernels(graph)
