"""ONNX Runtime sessions: opened from files that a toolchain wrote, with the settings that travel along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.port import TensorInfo, check_inputs

if TYPE_CHECKING:
    from boardwright.toolchains.port import Tensor

OPTIMIZATION_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""The words of ``runtime_settings["graph_optimization"]`` and ONNX Runtime's names for them."""

PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OrtSession:
    """A model opened in ONNX Runtime on the CPU."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = tuple(_info(arg) for arg in session.get_inputs())
        self._outputs = tuple(_info(arg) for arg in session.get_outputs())

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._outputs

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once.

        Raises:
            ToolchainError: INPUT_MISMATCH.
        """
        outputs = self.prepare(inputs)()
        return dict(zip((info.name for info in self._outputs), outputs, strict=True))

    def prepare(self, inputs: Mapping[str, Tensor]) -> Callable[[], Sequence[Tensor]]:
        """Check ``inputs`` once and return what runs them, with nothing between it and the runtime.

        Raises:
            ToolchainError: INPUT_MISMATCH.
        """
        check_inputs(self._inputs, inputs)
        return partial(self._session.run, [info.name for info in self._outputs], dict(inputs))


def runtime_settings(graph_optimization: str = "all") -> dict[str, Any]:
    """Return the settings a Bundle carries for ONNX Runtime; 0 threads leaves the number to the runtime."""
    return {"graph_optimization": graph_optimization, "intra_op_threads": 0, "session_config": {}}


def open_session(path: Path, settings: Mapping[str, Any], threads: int = 0) -> OrtSession:
    """Open the ``.onnx`` or ``.ort`` file at ``path``.

    ``settings`` are those of ``runtime_settings``. ``threads`` overrides theirs unless 0. With more than one
    thread the pool stops spinning when a run ends, so that sessions which are measured in turns do not
    take each other's cores.

    Raises:
        ToolchainError: GRAPH_UNREADABLE, GRAPH_UNSUPPORTED, BUILD_FAILED.
    """
    options = session_options(str(settings.get("graph_optimization", "all")))
    options.intra_op_num_threads = threads or int(settings.get("intra_op_threads", 0))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if _is_ort_format(path):
        # ONNX Runtime tells the formats apart by the file's name; files in a step are named by their input.
        options.add_session_config_entry("session.load_model_format", "ORT")
    for key, value in sorted(settings.get("session_config", {}).items()):
        options.add_session_config_entry(key, str(value))
    return OrtSession(start(path, options))


def _is_ort_format(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ORTM"


def session_options(graph_optimization: str) -> Any:
    """Return quiet session options at one of ``OPTIMIZATION_LEVELS``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    level = OPTIMIZATION_LEVELS[graph_optimization]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return options


def start(path: Path, options: Any, disabled_optimizers: list[str] | None = None) -> Any:
    """Create an InferenceSession on the CPU, its errors told apart.

    Raises:
        ToolchainError: GRAPH_UNREADABLE, GRAPH_UNSUPPORTED, BUILD_FAILED.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=[PROVIDER], disabled_optimizers=disabled_optimizers
        )
    except state.NotImplemented as error:
        raise ToolchainError(
            "GRAPH_UNSUPPORTED",
            f"ONNX Runtime {onnxruntime.__version__} has no kernel for this graph: {_plain(error)}",
        ) from error
    except (state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument) as error:
        raise ToolchainError(
            "GRAPH_UNREADABLE", f"ONNX Runtime refuses the graph: {_plain(error)}"
        ) from error
    except (state.Fail, state.RuntimeException, state.EPFail, RuntimeError) as error:
        # An operator the build does not know at all fails as Fail, with "is not a registered function/op".
        text = _plain(error)
        reason = "GRAPH_UNSUPPORTED" if "not a registered function" in text else "BUILD_FAILED"
        raise ToolchainError(reason, f"ONNX Runtime could not load the graph: {text}") from error


def runtime_version() -> str:
    """Return the installed ONNX Runtime's version without importing it; empty where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    for distribution in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""


def registered_kernels() -> dict[tuple[str, str], tuple[tuple[int, int], ...]]:
    """Return what the installed ONNX Runtime's CPU kernels cover: (domain, operator) to opset ranges.

    This is the runtime's own answer, not a table kept by hand.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == PROVIDER:
            low, high = kernel.version_range
            found.setdefault((kernel.domain, kernel.op_name), set()).add((int(low), int(high)))
    return {key: tuple(sorted(ranges)) for key, ranges in sorted(found.items())}


def _info(argument: Any) -> TensorInfo:
    shape = tuple(dim if isinstance(dim, int) else None for dim in argument.shape)
    return TensorInfo(argument.name, _DTYPES.get(argument.type, argument.type), shape)


def _plain(error: Exception) -> str:
    return " ".join(str(error).removeprefix("[ONNXRuntimeError] :").split())[:500]
