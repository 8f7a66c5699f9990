"""The compiler's step kinds and what each result depends on; light enough for the service to declare."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from boardwright.jobs.step_api import Determinism, Requirements, StepKind

GIB = 1 << 30
_INTEGER_FEATURES = ("avx512_vnni", "avx_vnni")


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def integer_arithmetic() -> str:
    """Return how this CPU multiplies 8-bit integers: figures of a quantized model depend on it.

    U8S8 products saturate at 16 bits on x86 without VNNI.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        return machine
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return f"{machine} unknown"
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return f"{machine} vnni" if any(name in flags for name in _INTEGER_FEATURES) else machine


def _import_environment() -> Mapping[str, str]:
    return _versions("onnx", "torch", "ultralytics")


def _graph_environment() -> Mapping[str, str]:
    return {**_versions("onnx", "onnxruntime"), "integer-arithmetic": integer_arithmetic()}


IMPORT = StepKind(
    "compile/import",
    version="1",
    determinism=Determinism.PURE,
    defaults={
        "format": None,
        "task": "",
        "input_spec": None,
        "output_spec": None,
        "builder": "build_network",
        "builder_arguments": {},
        "opset": 17,
    },
    requires=Requirements(memory_bytes=6 * GIB, time_limit_seconds=1800),
    environment=_import_environment,
)
QUANTIZE = StepKind(
    "compile/quantize",
    version="2",
    determinism=Determinism.PURE,
    defaults={
        "profile": "x86-vnni",
        "granularity": "profile",
        "samples": 300,
        "protect": True,
        "correct_bias": True,
        "exclude": [],
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=3600),
    environment=_graph_environment,
)
QUANTIZE_DYNAMIC = StepKind(
    "compile/quantize-dynamic",
    version="1",
    determinism=Determinism.PURE,
    defaults={
        "profile": "x86-vnni",
        "convolutions": False,
        "exclude": [],
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=1800),
    environment=_graph_environment,
)
QUANTIZE_WEIGHTS = StepKind(
    "compile/quantize-weights",
    version="1",
    determinism=Determinism.PURE,
    defaults={
        "bits": 4,
        "block_size": 32,
        "algorithm": "rtn",
        "symmetric": False,
        "integer_compute": False,
        "samples": 32,
        "exclude": [],
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=6 * GIB, time_limit_seconds=3600),
    environment=_graph_environment,
)
EVALUATE = StepKind(
    "compile/evaluate",
    version="1",
    determinism=Determinism.PURE,
    defaults={"samples": None, "fail_if_information_lost": True},
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=7200),
    environment=_graph_environment,
)

KINDS: Mapping[str, StepKind] = {
    kind.name: kind
    for kind in (
        IMPORT,
        QUANTIZE,
        QUANTIZE_DYNAMIC,
        QUANTIZE_WEIGHTS,
        EVALUATE,
    )
}
