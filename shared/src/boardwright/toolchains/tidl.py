"""``tidl``: artifacts for the C7x DSP and its MMA, compiled by TI's tools on an x86 machine.

``tidlrunner-cli`` compiles an ONNX graph into the folder of artifacts that ONNX Runtime's TIDL execution
provider loads on the board. The graph carries its precision as explicit Q/DQ nodes: TIDL reads their scales
instead of calibrating (``prequantized_model``). The tools are bound to TI's licence and to one release of the
board's Processor SDK.

Sources: TI edgeai-tidlrunner, "command line arguments" (https://github.com/TexasInstruments/edgeai-tidlrunner);
edgeai-tidl-tools, "User options for TIDL acceleration" and "Quantization"
(https://github.com/TexasInstruments/edgeai-tidl-tools).
"""

from __future__ import annotations

from boardwright.toolchains.agent_toolchain import AgentToolchain
from boardwright.toolchains.port import BuildRequest

RUNNER = "tidlrunner-cli"
ARTIFACTS_FOLDER = "artifacts"

_DEVICES = {"sk-tda4vm": "TDA4VM"}
_POWERS_OF_TWO = "1"
"""TIDL's ``quantization_scale_type`` of devices with the first MMA."""


class TidlToolchain(AgentToolchain):
    """Compiles ``artifacts/`` from a Q/DQ graph; a float graph would be calibrated on random inputs."""

    name = "tidl"
    runtime = "tidl"
    architectures = ("aarch64",)
    option_values = {"tensor_bits": (8, 16)}
    waits_for = (
        "an x86 machine with TI's edgeai-tidl-tools of the board's Processor SDK release (under TI's "
        "licence), and a board agent on a TDA4VM for its own results"
    )

    def vendor_commands(self, request: BuildRequest) -> tuple[tuple[str, ...], ...]:
        options = self.checked_options(request)
        device = _DEVICES.get(request.board, request.board)
        return (
            (
                RUNNER,
                "compile",
                *("--model_path", str(request.graph)),
                *("--target_device", device),
                *("--tensor_bits", str(options["tensor_bits"])),
                *("--prequantized_model", "1"),
                *("--quantization_scale_type", _POWERS_OF_TWO),
                *("--artifacts_folder", str(request.output_dir / ARTIFACTS_FOLDER)),
            ),
        )
