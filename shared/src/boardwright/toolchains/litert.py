"""``litert-vx``: a full-integer LiteRT model for the NPU of NXP's i.MX 8M Plus through the VX delegate.

``onnx2tf`` turns the float graph into NHWC and quantizes it per tensor with calibration samples; the
delegate compiles it on the board at its first run. The delegate takes full-integer models only; what it
does not take runs on the Cortex-A53 cores.

The converter chooses its own scales, from the float graph. What the compiler's ``quantize`` does first
(weights behind channels that never change are left out, ranges evened out, biases corrected) does not reach
this build: under one scale per tensor such weights can take the levels of all others. Look at the artifact's
golden samples on the board before it is promoted; ``granularity=per-channel`` is the slower way out.

Sources: onnx2tf's README (https://github.com/PINTO0309/onnx2tf); NXP UG10166, "i.MX Machine Learning User's
Guide", section on the VX delegate (https://www.nxp.com/docs/en/user-guide/UG10166.pdf).
"""

from __future__ import annotations

from boardwright.toolchains.agent_toolchain import AgentToolchain
from boardwright.toolchains.port import BuildRequest

CALIBRATION_FILE = "calibration.npy"
DELEGATE = "/usr/lib/libvx_delegate.so"
BENCHMARK = "benchmark_model"
"""In NXP's image below ``/usr/bin/tensorflow-lite-<version>/examples``; the agent puts that on its PATH."""


class LiteRtVxToolchain(AgentToolchain):
    """Builds a ``.tflite`` file and checks it on the board.

    The option ``input_name`` names the graph's image input. Calibration samples are already preprocessed,
    so mean 0 and standard deviation 1 are handed on.
    """

    name = "litert-vx"
    runtime = "litert"
    architectures = ("aarch64",)
    option_values = {"granularity": ("per-tensor", "per-channel")}
    waits_for = (
        "a worker whose environment holds onnx2tf 1.29 with TensorFlow, and a board agent on an i.MX 8M Plus "
        "with NXP's eIQ image for the NPU's own results"
    )

    def vendor_commands(self, request: BuildRequest) -> tuple[tuple[str, ...], ...]:
        options = self.checked_options(request)
        out = request.output_dir
        model = out / f"{request.graph.stem}_full_integer_quant.tflite"
        return (
            (
                "onnx2tf",
                *("--input_onnx_file_path", str(request.graph)),
                *("--output_folder_path", str(out)),
                "--output_integer_quantized_tflite",
                *("--quant_type", options["granularity"]),
                *("--custom_input_op_name_np_data_path", "input", str(out / CALIBRATION_FILE), "0", "1"),
            ),
            (
                BENCHMARK,
                f"--graph={model}",
                f"--external_delegate_path={DELEGATE}",
                "--num_runs=1",
            ),
        )
