"""``tensorrt``: an engine built by ``trtexec`` on the Jetson that will run it.

An engine fits one GPU architecture and one TensorRT version, so it is built on the board. The graph carries
its precision as explicit Q/DQ nodes. ``strongly-typed`` keeps every tensor's type as the graph says, which
is the only mode left from TensorRT 11 on; ``mixed`` lets TensorRT 10 run the unquantized rest in FP16.

Source: NVIDIA TensorRT documentation, "Explicit Quantization" and "trtexec"
(https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html).
"""

from __future__ import annotations

from boardwright.toolchains.agent_toolchain import AgentToolchain
from boardwright.toolchains.port import BuildRequest

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
"""Where JetPack installs it; it is on no PATH by default."""
ENGINE_FILE = "model.plan"
LAYERS_FILE = "layers.json"
TIMING_CACHE_FILE = "timing.cache"

_PRECISION_FLAGS = {"strongly-typed": ("--stronglyTyped",), "mixed": ("--int8", "--fp16")}


class TensorRtToolchain(AgentToolchain):
    """Builds ``model.plan`` on a Jetson."""

    name = "tensorrt"
    runtime = "tensorrt"
    architectures = ("aarch64",)
    option_values = {"precision": ("strongly-typed", "mixed"), "builder_optimization_level": (3, 4, 5)}
    waits_for = (
        "a board agent on a Jetson with JetPack's TensorRT (an engine fits only the GPU that built it)"
    )

    def vendor_commands(self, request: BuildRequest) -> tuple[tuple[str, ...], ...]:
        options = self.checked_options(request)
        out = request.output_dir
        return (
            (
                TRTEXEC,
                f"--onnx={request.graph}",
                f"--saveEngine={out / ENGINE_FILE}",
                *_PRECISION_FLAGS[options["precision"]],
                f"--builderOptimizationLevel={options['builder_optimization_level']}",
                f"--timingCacheFile={out / TIMING_CACHE_FILE}",
                f"--exportLayerInfo={out / LAYERS_FILE}",
                "--profilingVerbosity=detailed",
                "--skipInference",
            ),
        )
