"""Opens a model by its runtime's name, for whoever holds an artifact's files and its HardwarePin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.port import Session

OPENED_HERE = ("onnxruntime", "openvino")
"""The runtimes that have a Python package; the others are driven by agents on their boards."""


def import_runtime(runtime: str) -> None:
    """Import the runtime's package and nothing more.

    Raises:
        ToolchainError: BUILD_FAILED, it is not installed.
    """
    if runtime == "openvino":
        from boardwright.toolchains import openvino_session

        openvino_session.import_openvino()
    else:
        import onnxruntime  # noqa: F401


def open_model(
    runtime: str, path: Path, settings: Mapping[str, Any], threads: int = 0, weights: Path | None = None
) -> Session:
    """Open the model at ``path`` in the runtime that a HardwarePin names; an empty name is ONNX Runtime.

    ``weights`` is the second file of runtimes that have two; None where it lies beside the first under its
    own name. ``threads`` overrides the settings unless 0.

    Raises:
        ToolchainError: RUNTIME_UNKNOWN; the runtime's own reasons.
    """
    if runtime == "openvino":
        from boardwright.toolchains import openvino_session

        return openvino_session.open_session(path, settings, threads, weights)
    if runtime in ("", "onnxruntime"):
        from boardwright.toolchains import ort_session

        return ort_session.open_session(path, settings, threads)
    raise ToolchainError(
        "RUNTIME_UNKNOWN", f"Models for {runtime} are not opened here, only for {', '.join(OPENED_HERE)}."
    )
