"""The toolchains by name."""

from __future__ import annotations

from difflib import get_close_matches

from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.litert import LiteRtVxToolchain
from boardwright.toolchains.onnx_runtime import OnnxRuntimeToolchain
from boardwright.toolchains.openvino import OpenVinoToolchain
from boardwright.toolchains.ort_format import OrtFormatToolchain
from boardwright.toolchains.port import Toolchain
from boardwright.toolchains.tensorrt import TensorRtToolchain
from boardwright.toolchains.tidl import TidlToolchain

_TOOLCHAINS: tuple[type[Toolchain], ...] = (
    OnnxRuntimeToolchain,
    OrtFormatToolchain,
    OpenVinoToolchain,
    TensorRtToolchain,
    LiteRtVxToolchain,
    TidlToolchain,
)


def toolchain_names() -> tuple[str, ...]:
    """Return every toolchain's name."""
    return tuple(toolchain.name for toolchain in _TOOLCHAINS)


def toolchain_named(name: str) -> Toolchain:
    """Return the toolchain called ``name``.

    Raises:
        ToolchainError: TOOLCHAIN_UNKNOWN, with the nearest known name.
    """
    for toolchain in _TOOLCHAINS:
        if toolchain.name == name:
            return toolchain()
    near = get_close_matches(name, toolchain_names(), 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ToolchainError(
        "TOOLCHAIN_UNKNOWN",
        f"There is no toolchain {name!r}; known are {', '.join(toolchain_names())}.{hint}",
    )
