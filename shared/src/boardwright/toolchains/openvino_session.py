"""OpenVINO on the CPU: opened from the two files that ``openvino`` wrote, with their settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.port import TensorInfo, check_inputs

if TYPE_CHECKING:
    from boardwright.toolchains.port import Tensor

DEVICE = "CPU"
_RESULT = "/sink_port_0"
"""OpenVINO's ONNX reader names the node of an output after the output, with this behind it."""


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    The package reports each conversion to its makers unless the user opted out; where the telemetry package
    is not installed it does without. Here it is never found.

    Raises:
        ToolchainError: BUILD_FAILED, it is not installed.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise ToolchainError("BUILD_FAILED", MISSING) from error
    return openvino


MISSING = "OpenVINO is not installed; install the package openvino in the worker's environment."


def runtime_version() -> str:
    """Return the installed OpenVINO's version without importing it; empty where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("openvino")
    except PackageNotFoundError:
        return ""


def runtime_settings() -> dict[str, Any]:
    """Return the settings a Bundle carries for OpenVINO; 0 threads leaves the number to the runtime.

    ``inference_precision`` f32 keeps what is not quantized in float32: left to itself OpenVINO computes it in
    bfloat16 on CPUs with AMX, and golden samples would differ from machine to machine.
    """
    return {
        "performance_hint": "LATENCY",
        "inference_precision": "f32",
        "inference_threads": 0,
        "plugin_config": {},
    }


class OpenVinoSession:
    """A model compiled by OpenVINO for the CPU."""

    def __init__(self, openvino: Any, compiled: Any) -> None:
        self._openvino = openvino
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._inputs = tuple(_info(port, port.get_node().get_friendly_name()) for port in compiled.inputs)
        self._outputs = tuple(
            _info(port, port.get_node().get_friendly_name().removesuffix(_RESULT))
            for port in compiled.outputs
        )

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._outputs

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once; the outputs are the caller's own.

        Raises:
            ToolchainError: INPUT_MISMATCH.
        """
        outputs = self.prepare(inputs)()
        return {info.name: array.copy() for info, array in zip(self._outputs, outputs, strict=True)}

    def prepare(self, inputs: Mapping[str, Tensor]) -> Callable[[], Sequence[Tensor]]:
        """Check ``inputs`` once and return what runs them; the outputs are overwritten by the next run.

        Raises:
            ToolchainError: INPUT_MISMATCH.
        """
        import numpy as np

        check_inputs(self._inputs, inputs)
        tensors = [
            self._openvino.Tensor(np.ascontiguousarray(inputs[info.name]), shared_memory=True)
            for info in self._inputs
        ]
        request = self._request
        count = len(self._outputs)

        def run() -> Sequence[Tensor]:
            for index, tensor in enumerate(tensors):
                request.set_input_tensor(index, tensor)
            request.infer()
            return [request.get_output_tensor(index).data for index in range(count)]

        return run

    def layers(self) -> tuple[tuple[str, str, str], ...]:
        """Return what really runs, in order: (kind, precision, names of the graph's layers fused into it)."""
        found = []
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            facts = {key: _text(value) for key, value in node.get_rt_info().items()}
            kind, precision = facts.get("layerType", ""), facts.get("runtimePrecision", "")
            found.append((kind, precision, facts.get("originalLayersNames", "")))
        return tuple(found)


def open_session(
    path: Path, settings: Mapping[str, Any], threads: int = 0, weights: Path | None = None
) -> OpenVinoSession:
    """Open the IR whose topology lies at ``path``.

    ``weights`` is the file of its weights, by default the one beside it with the suffix ``.bin``.
    ``settings`` are those of ``runtime_settings``; ``threads`` overrides theirs unless 0.

    Raises:
        ToolchainError: GRAPH_UNREADABLE, BUILD_FAILED.
    """
    openvino = import_openvino()
    core = openvino.Core()
    try:
        model = core.read_model(str(path), str(weights or path.with_suffix(".bin")))
    except RuntimeError as error:
        raise ToolchainError("GRAPH_UNREADABLE", f"OpenVINO refuses the model: {plain(error)}") from error
    return compile_model(core, model, settings, threads)


def compile_model(core: Any, model: Any, settings: Mapping[str, Any], threads: int = 0) -> OpenVinoSession:
    """Compile a model that is in memory, with ``runtime_settings``.

    Raises:
        ToolchainError: BUILD_FAILED.
    """
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": str(settings.get("performance_hint", "LATENCY")),
        "INFERENCE_PRECISION_HINT": str(settings.get("inference_precision", "f32")),
        **settings.get("plugin_config", {}),
    }
    count = threads or int(settings.get("inference_threads", 0))
    if count:
        config["INFERENCE_NUM_THREADS"] = count
    try:
        return OpenVinoSession(import_openvino(), core.compile_model(model, DEVICE, config))
    except RuntimeError as error:
        raise ToolchainError("BUILD_FAILED", f"OpenVINO could not load the model: {plain(error)}") from error


def plain(error: Exception) -> str:
    """Return the error's words without the places in OpenVINO's sources."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and "src/" not in line and line != "Summary:"]
    return " ".join(told or lines)[:500]


def _info(port: Any, name: str) -> TensorInfo:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.get_partial_shape())
    return TensorInfo(name, port.get_element_type().to_dtype().name, shape)


def _text(value: Any) -> str:
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)
