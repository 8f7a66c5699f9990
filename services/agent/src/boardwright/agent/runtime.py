"""Runs a bundle in its real runtime, through the very code that the builder made its golden samples with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.agent.errors import Refused
from boardwright.content.canonical import read_json
from boardwright.device.bundle import Bundle
from boardwright.model.errors import ModelError
from boardwright.model.pins import HardwarePin

if TYPE_CHECKING:
    from boardwright.toolchains.port import Session


def open_model(folder: Path, bundle: Bundle) -> Session:
    """Load the model of the bundle that lies in ``folder`` in its pin's runtime, with the bundle's settings.

    Raises:
        Refused: RUNTIME_FAILED, the runtime does not load it; BUNDLE_INVALID.
    """
    from boardwright.toolchains.errors import ToolchainError
    from boardwright.toolchains.ort_session import OPTIMIZATION_LEVELS
    from boardwright.toolchains.runtimes import open_model as open_in

    model = bundle.file("model")
    if model is None:
        raise Refused("BUNDLE_INVALID", "the bundle has no model file")
    settings = _settings(folder, bundle)
    level = settings.get("graph_optimization", "all")
    if level not in OPTIMIZATION_LEVELS:
        raise Refused(
            "RUNTIME_FAILED", f"this agent knows no graph optimization {level!r}: install a newer one"
        )
    try:
        return open_in(_runtime(folder, bundle), folder / model.name, settings)
    except ToolchainError as error:
        raise Refused("RUNTIME_FAILED", f"{model.name} does not load: {error.message}") from error
    except Exception as error:  # the runtime's exceptions have no common root but this
        raise Refused("RUNTIME_FAILED", f"{model.name} does not load: {error}") from error


def _runtime(folder: Path, bundle: Bundle) -> str:
    file = bundle.file("pin")
    try:
        return HardwarePin.from_json((folder / file.name).read_bytes()).runtime if file else ""
    except ModelError as error:
        raise Refused("BUNDLE_INVALID", f"the bundle's pin cannot be read: {error}") from error


def _settings(folder: Path, bundle: Bundle) -> Mapping[str, Any]:
    """See `runtime_settings` of `boardwright.toolchains.ort_session` and `openvino_session`."""
    file = bundle.file("runtime")
    if file is None:
        return {}
    try:
        document = read_json((folder / file.name).read_bytes())
    except ValueError as error:
        raise Refused("BUNDLE_INVALID", f"{file.name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Refused("BUNDLE_INVALID", f"{file.name} is not a JSON object")
    return document
