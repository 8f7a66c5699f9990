"""What this machine is: the facts a HardwarePin is matched against.

Everything is read from files (``/proc``, ``/etc``, ``/dev``, installed package metadata); no process is
started and no vendor library loaded, so that a device may ask on every poll.
"""

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

# The first device-tree "compatible" strings of the boards in the catalogue.
_BOARDS = {
    "raspberrypi,5-model-b": "raspberry-pi-5",
    "raspberrypi,4-model-b": "raspberry-pi-4",
    "nvidia,p3768-0000+p3767-0000": "jetson-orin-nx",
    "nvidia,p3768-0000+p3767-0001": "jetson-orin-nx",
    "fsl,imx8mp-evk": "imx8m-plus",
    "ti,j721e-sk": "sk-tda4vm",
}
_GENERIC_BOARDS = {"x86_64": "x86-64"}
_VNNI = {"avx512_vnni", "avx_vnni"}
_DEVICE_FILES = {"hailo0": "hailo8", "apex_0": "edgetpu", "galcore": "vivante-vip"}
_RUNTIMES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "litert": ("ai-edge-litert",),
    "ncnn": ("ncnn",),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The facts of one machine.

    Attributes:
        architecture: as the kernel names it ("x86_64", "aarch64").
        board: the catalogue's name; empty when it cannot be told.
        machine: the maker's own words, for people.
        cpu_features: the kernel's flags, and "vnni" where either of x86's two forms of it is there: inference
            kernels exist for both, so pins name what they share.
        cpus: how many may be used by this process.
        memory_bytes: of the whole machine.
        accelerators: names that pins use ("hailo8", "NVIDIA H100").
        runtimes: installed inference runtimes and their versions.
        bsp, driver: as pins name them; empty when there is none.
    """

    architecture: str
    board: str = ""
    machine: str = ""
    cpu_features: frozenset[str] = frozenset()
    cpus: int = 1
    memory_bytes: int = 0
    accelerators: tuple[str, ...] = ()
    runtimes: dict[str, str] = field(default_factory=dict)
    bsp: str = ""
    driver: str = ""


def detect_host(board: str = "", root: Path = Path("/")) -> Host:
    """Find out what this machine is.

    Args:
        board: the catalogue's name when it is known better (set at enrolment); it is believed.
        root: where ``proc``, ``etc`` and ``dev`` are, for tests.
    """
    architecture = platform.machine()
    cpu_text = _text(root / "proc/cpuinfo")
    compatible = _text(root / "proc/device-tree/compatible").split("\0")
    known = next((_BOARDS[name] for name in compatible if name in _BOARDS), "")
    model = _text(root / "proc/device-tree/model").strip("\0\n ") or _cpu_model(cpu_text) or architecture
    if not known and not any(compatible):
        known = _GENERIC_BOARDS.get(architecture, "")
    return Host(
        architecture=architecture,
        board=board or known,
        machine=model,
        cpu_features=_cpu_features(cpu_text),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(_text(root / "proc/meminfo")),
        accelerators=_accelerators(root),
        runtimes=_runtimes(),
        bsp=_bsp(_text(root / "etc/nv_tegra_release")),
        driver=_driver(_text(root / "proc/driver/nvidia/version")),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _cpu_features(text: str) -> frozenset[str]:
    """The flags that every core has: on mixed cores a kernel may land on the smallest."""
    lines = re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    features = set.intersection(*(set(line.split()) for line in lines)) if lines else set()
    return frozenset(features | ({"vnni"} if features & _VNNI else set()))


def _cpu_model(text: str) -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _memory_bytes(text: str) -> int:
    found = re.search(r"^MemTotal:\s*(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _accelerators(root: Path) -> tuple[str, ...]:
    found = [name for file, name in _DEVICE_FILES.items() if (root / "dev" / file).exists()]
    for information in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        model = re.search(r"^Model:\s*(.*)$", _text(information), re.MULTILINE)
        if model:
            found.append(model.group(1).strip())
    return tuple(found)


def _runtimes() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for runtime, packages in _RUNTIMES.items():
        for package in packages:
            try:
                found[runtime] = version(package)
                break
            except PackageNotFoundError:
                continue
    return found


def _bsp(text: str) -> str:
    """ "# R36 (release), REVISION: 4.3, …" is L4T 36.4.3."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"L4T {found.group(1)}.{found.group(2)}" if found else ""


def _driver(text: str) -> str:
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return found.group(1) if found else ""
