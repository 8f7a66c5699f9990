from dataclasses import replace
from pathlib import Path

import pytest

from boardwright.model import HardwarePin, Host, ModelError, detect_host, mismatches
from boardwright.model.pins import version_fits

HOST = Host(
    architecture="aarch64",
    board="jetson-orin-nx",
    cpu_features=frozenset({"asimddp", "fphp"}),
    accelerators=("sm_87",),
    runtimes={"onnxruntime": "1.31.1"},
    bsp="L4T 36.4.3",
    driver="540.4.0",
)
PIN = HardwarePin(
    board="jetson-orin-nx",
    architecture="aarch64",
    cpu_features=("asimddp",),
    accelerator="sm_87",
    runtime="onnxruntime",
    runtime_version="1.31.*",
    bsp="L4T 36.4.3",
    driver=">=540",
)


def test_a_matching_host_has_no_mismatch() -> None:
    assert mismatches(PIN, HOST) == []
    assert mismatches(HardwarePin(architecture="aarch64"), HOST) == []
    assert HardwarePin.from_json(PIN.to_json()) == PIN


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"board": "raspberry-pi-5"}, "built for board jetson-orin-nx, this is raspberry-pi-5"),
        ({"board": ""}, "built for board jetson-orin-nx, this is an unknown board"),
        ({"architecture": "x86_64"}, "built for architecture aarch64, this machine is x86_64"),
        ({"cpu_features": frozenset()}, "needs CPU features that this machine lacks: asimddp"),
        ({"accelerators": ()}, "needs accelerator sm_87, this machine has none"),
        ({"runtimes": {"ncnn": "1"}}, "needs runtime onnxruntime, this machine has ncnn"),
        ({"runtimes": {"onnxruntime": "1.3.1"}}, r"needs onnxruntime 1.31.*, this machine has 1.3.1"),
        ({"bsp": "L4T 35.1"}, "built for BSP L4T 36.4.3, this machine has L4T 35.1"),
        ({"driver": ""}, "needs driver >=540, this machine has none"),
    ],
)
def test_each_difference_is_a_sentence(change: dict[str, object], sentence: str) -> None:
    assert mismatches(PIN, replace(HOST, **change)) == [sentence]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "actual", "fits"),
    [
        ("1.31.1", "1.31.1", True),
        ("1.31.1", "1.31.10", False),
        ("1.31.*", "1.31", True),
        ("1.3.*", "1.31.1", False),
        (">=1.20,<2", "1.31.1", True),
        (">=1.20,<2", "2.0", False),
        (">=1.31", "1.31.0", True),
        ("<=1.9", "1.10", False),
        ("==1.31", "1.31.0", True),
        ("1.31.1", "", False),
    ],
)
def test_versions(wanted: str, actual: str, fits: bool) -> None:
    assert version_fits(wanted, actual) is fits


def test_bad_pins_are_refused() -> None:
    with pytest.raises(ModelError, match="architecture is missing"):
        HardwarePin(architecture="")
    with pytest.raises(ModelError, match="runtime_version without a runtime"):
        HardwarePin(architecture="x86_64", runtime_version="1")
    with pytest.raises(ModelError, match="neither a version"):
        HardwarePin(architecture="x86_64", runtime="onnxruntime", runtime_version="~=1.3")
    with pytest.raises(ModelError, match="unknown field 'cpu_feature'; did you mean 'cpu_features'"):
        HardwarePin.from_json({"architecture": "x86_64", "cpu_feature": []})


def test_this_machine_is_detected() -> None:
    host = detect_host()
    assert host.architecture and host.cpus >= 1 and host.memory_bytes > 1 << 20
    assert detect_host(board="my-board").board == "my-board"
    assert (
        mismatches(HardwarePin(architecture=host.architecture, cpu_features=tuple(host.cpu_features)), host)
        == []
    )


def test_a_jetson_is_recognised_by_its_files(tmp_path: Path) -> None:
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0000\0nvidia,tegra234\0")
    (tree / "model").write_bytes(b"NVIDIA Jetson Orin NX\0")
    (tmp_path / "proc/cpuinfo").write_text("processor: 0\nFeatures : a b c\n\nprocessor: 1\nFeatures : b c\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:  2048 kB\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(
        "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n"
    )
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/hailo0").touch()
    host = detect_host(root=tmp_path)
    assert (host.board, host.machine) == ("jetson-orin-nx", "NVIDIA Jetson Orin NX")
    assert host.cpu_features == {"b", "c"} and host.memory_bytes == 2 << 20
    assert (host.bsp, host.driver, host.accelerators) == ("L4T 36.4.3", "540.4.0", ("hailo8",))
