"""The builder's step kinds. Importing this is cheap: services declare steps with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from boardwright.jobs.step_api import Determinism, Requirements, StepKind

GRAPH = "graph"
INPUT_SPEC = "input_spec"
DATASET = "golden"
PACK_PREFIX = "golden.pack-"
GOLDEN_FILE = "golden.npz"
REPORT_FILE = "compatibility.json"
PIN_FILE = "pin.json"
RUNTIME_FILE = "runtime.json"
RUNS_FILE = "runs.json"

_GIBIBYTE = 1 << 30
_TOLD_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def model_input(number: int) -> str:
    """Return the input name of the artifact's model number ``number`` of a measurement."""
    return f"model-{number}"


def weights_input(number: int) -> str:
    """Return the input name of the file beside the model of artifact ``number``, where there is one."""
    return f"weights-{number}"


def golden_input(number: int) -> str:
    """Return the input name of the golden samples of artifact ``number`` of a measurement."""
    return f"golden-{number}"


@lru_cache(maxsize=1)
def _host_facts() -> tuple[str, str]:
    from boardwright.model.host import detect_host

    host = detect_host()
    told = "+".join(name for name in _TOLD_FEATURES if name in host.cpu_features)
    return host.board, f"{host.architecture} {told}".strip()


@lru_cache(maxsize=1)
def _catalogue_digest() -> str:
    from boardwright.content import Digest

    folder = files("boardwright.builder") / "boards"
    parts = sorted([*folder.iterdir(), *(folder / "operators").iterdir()], key=lambda file: file.name)
    content = b"\0".join(file.read_bytes() for file in parts if file.name.endswith(".yaml"))
    return Digest.of(content).hex[:16]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def build_environment() -> Mapping[str, str]:
    """What a build's bytes depend on besides its inputs: libraries, the catalogue, and this CPU's kernels."""
    board, cpu = _host_facts()
    return {
        "onnxruntime": _version("onnxruntime"),
        "openvino": _version("openvino"),
        "onnx": _version("onnx"),
        "numpy": _version("numpy"),
        "catalogue": _catalogue_digest(),
        "cpu": cpu,
        "host": board,
    }


def measure_environment() -> Mapping[str, str]:
    """The fingerprint under which a measurement is found again."""
    board, cpu = _host_facts()
    return {
        "onnxruntime": _version("onnxruntime"),
        "openvino": _version("openvino"),
        "cpu": cpu,
        "host": board,
    }


BUILD = StepKind(
    name="build/build",
    version="2",
    determinism=Determinism.PURE,
    defaults={"options": {}, "pin": {}, "golden_samples": 4},
    requires=Requirements(memory_bytes=4 * _GIBIBYTE, time_limit_seconds=1800),
    environment=build_environment,
)

MEASURE = StepKind(
    name="build/measure",
    version="1",
    determinism=Determinism.OBSERVED,
    defaults={
        "runs": 200,
        "warm_up_runs": 20,
        "block": 10,
        "threads": [1, 0],
        "max_seconds": 120.0,
        "baseline": -1,
        "allow_emulated": False,
    },
    requires=Requirements(memory_bytes=4 * _GIBIBYTE, time_limit_seconds=1800),
    environment=measure_environment,
)

KINDS = (BUILD, MEASURE)
