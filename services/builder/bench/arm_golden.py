"""Run Arm artifacts on ONNX Runtime's own aarch64 kernels, emulated: correctness, never speed.

    sudo python services/builder/bench/arm_golden.py [--work DIR] [--cpu cortex-a76] [GRAPH.onnx SPEC.json]...

Builds each graph for raspberry-pi-5 here, then checks its golden samples in a chroot that holds Debian's
arm64 Python and the aarch64 wheels, under QEMU's user mode as the named core. Without graphs it takes the
small ones of ``boardwright.testing.sample_graphs``, in float and S8S8. Needs root (chroot), apt and pip.
Prints a line a graph: the largest difference, the tolerance and the verdict.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from boardwright.builder.steps import build
from boardwright.builder.steps.kinds import BUILD, GRAPH, INPUT_SPEC
from boardwright.jobs.step_api import InputFile, StepRequest, ignore_progress
from boardwright.model.input_spec import InputSpec
from boardwright.testing import sample_graphs

PACKAGES = (
    *(
        "libc6",
        "libstdc++6",
        "libgcc-s1",
        "zlib1g",
        "libexpat1",
        "libssl3",
        "libffi8",
        "libbz2-1.0",
        "liblzma5",
    ),
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "python3.11"),
)
WHEELS = ("onnxruntime", "numpy", "flatbuffers", "packaging", "protobuf", "pillow")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
CPUINFO = (
    "processor\t: {cpu}\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid "
    "asimdrdm lrcpc dcpop asimddp\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\n"
    "CPU part\t: 0xd0b\nCPU revision\t: 1\n\n"
)
CHECK = """
import json, sys, pathlib
from boardwright.model.golden import GoldenSamples
from boardwright.toolchains.ort_session import open_session
folder = pathlib.Path(sys.argv[1])
golden = GoldenSamples.from_bytes((folder / "golden.npz").read_bytes())
session = open_session(folder / "model.ort", json.loads((folder / "runtime.json").read_text()), 1)
verdict = golden.check(session.run)
print(json.dumps({"passed": verdict.passed, "worst": verdict.worst_error, "reasons": verdict.reasons,
                  "absolute": golden.absolute}))
"""


def _run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


def make_root(work: Path) -> Path:
    """Make the folder that the emulated Python lives in, once."""
    root = work / "root"
    if (root / "check.py").exists():
        return root
    downloads = work / "downloads"
    for folder in (root, downloads, work / "lists/partial", work / "cache/archives/partial"):
        folder.mkdir(parents=True, exist_ok=True)
    _run("apt-get", "download", "qemu-user-static", cwd=downloads)
    arm = [
        *("-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64", "-oDir::State::status=/dev/null"),
        *(f"-oDir::State::Lists={work}/lists", f"-oDir::Cache={work}/cache"),
    ]
    _run("apt-get", *arm, "update")
    _run("apt-get", *arm, "download", *PACKAGES, cwd=downloads)
    for package in downloads.glob("*.deb"):
        _run("dpkg", "-x", package, work / "qemu" if "qemu" in package.name else root)
    shutil.copy(work / "qemu/usr/bin/qemu-aarch64-static", root)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    wheels = [f"{name}=={importlib.metadata.version(name)}" for name in WHEELS]
    pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:")
    _run(*pip, "--python-version", "3.11", *platforms, "-d", downloads, *wheels)
    for wheel in downloads.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(root / "site")
    _add_boardwright(root)
    _add_machine(root)
    (root / "check.py").write_text(CHECK)
    return root


def _add_boardwright(root: Path) -> None:
    import boardwright.model

    source = Path(boardwright.model.__file__).parents[1]
    for part in ("content", "model", "toolchains"):
        shutil.copytree(source / part, root / "site/boardwright" / part, dirs_exist_ok=True)


def _add_machine(root: Path) -> None:
    """What ONNX Runtime reads of the machine: four Cortex-A76, as a Raspberry Pi 5 has."""
    for folder in ("tmp", "proc", "dev", "sys/devices/system/cpu", "artifacts"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present"):
        (root / "sys/devices/system/cpu" / name).write_text("0-3\n")
    (root / "proc/cpuinfo").write_text("".join(CPUINFO.format(cpu=cpu) for cpu in range(4)))
    for name, minor in (("null", 3), ("urandom", 9)):
        if not (root / "dev" / name).exists():
            os.mknod(root / "dev" / name, 0o666 | 0o020000, os.makedev(1, minor))


def build_for_arm(graph: Path, spec: Path, out: Path) -> None:
    """Build the graph for raspberry-pi-5 into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    inputs = {GRAPH: InputFile(graph, "", ""), INPUT_SPEC: InputFile(spec, "", "")}
    parameters = {**BUILD.defaults, "board": "raspberry-pi-5", "toolchain": "ort-format"}
    build.run(StepRequest("build/build", parameters, inputs, 0, out), ignore_progress)


def sample_pairs(work: Path) -> list[tuple[Path, Path]]:
    """Return the small graphs with their spec."""
    spec = work / "spec.json"
    size = sample_graphs.SIDE
    document = InputSpec(
        name=sample_graphs.INPUT_NAME, height=size, width=size, scale=1 / 127.5, mean=(1, 1, 1)
    )
    spec.write_text(json.dumps(document.to_json()))
    graphs = (
        sample_graphs.write_classifier(work / "float.onnx"),
        sample_graphs.write_quantized_classifier(work / "s8s8.onnx", "int8"),
    )
    return [(graph, spec) for graph in graphs]


def main() -> int:
    """Build, run, print; the exit status is the number of graphs that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/boardwright-arm-golden"))  # noqa: S108
    parser.add_argument("--cpu", default="cortex-a76")
    parser.add_argument("pairs", nargs="*", type=Path, metavar="GRAPH.onnx SPEC.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    root = make_root(options.work)
    pairs = list(zip(options.pairs[::2], options.pairs[1::2], strict=True)) or sample_pairs(options.work)
    failed = 0
    for graph, spec in pairs:
        build_for_arm(graph, spec, root / "artifacts" / graph.stem)
        emulate = ("chroot", root, "/qemu-aarch64-static", "-cpu", options.cpu, "-E", "PYTHONPATH=/site")
        text = _run(*emulate, "/usr/bin/python3.11", "/check.py", f"/artifacts/{graph.stem}")
        found = json.loads(text.splitlines()[-1])
        failed += not found["passed"]
        verdict = "passed" if found["passed"] else f"FAILED: {'; '.join(found['reasons'])}"
        line = f"{graph.stem:24} worst {found['worst']:.3g}, tolerance {found['absolute']:.3g}: {verdict}"
        sys.stdout.write(line + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
