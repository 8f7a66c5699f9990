"""``ort-format``: ONNX Runtime's own flatbuffer, for Arm boards and small builds of the runtime.

It does what ``python -m onnxruntime.tools.convert_onnx_models_to_ort --optimization_style Fixed
--target_platform arm`` does, through the same session options. ONNX Runtime writes weights and names in
the order of a hash table, so that the same graph gives other bytes each time; ``ort_flatbuffer`` brings
them into one order.
"""

from __future__ import annotations

from collections import Counter

from boardwright.content.oci import ENGINE_MEDIA_TYPE
from boardwright.toolchains.graph import read_graph
from boardwright.toolchains.onnx_runtime import OrtToolchain, save_optimized
from boardwright.toolchains.ort_flatbuffer import canonical, operators
from boardwright.toolchains.port import BuildRequest, BuiltFile, BuiltModel

MODEL_FILE = "model.ort"

_PLATFORMS = {"aarch64": "arm", "x86_64": "amd64"}


class OrtFormatToolchain(OrtToolchain):
    """Builds ``model.ort``, optimised ahead of time."""

    name = "ort-format"
    architectures = ("aarch64", "x86_64")

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
        self._require_runtime()
        facts = read_graph(request.graph)
        written = request.output_dir / MODEL_FILE
        save_optimized(request.graph, written, "all", "ORT", request.architecture)
        content = canonical(written.read_bytes())
        written.write_bytes(content)
        file = BuiltFile(MODEL_FILE, written, ENGINE_MEDIA_TYPE)
        return self._built(request, facts, file, Counter(operators(content)))
