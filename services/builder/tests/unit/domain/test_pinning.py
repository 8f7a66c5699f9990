"""Pins follow from board, toolchain and host; figures count only where the pin fits."""

import pytest

from boardwright.builder.catalogue import shipped_catalogue
from boardwright.builder.domain.pinning import PinRefused, host_pin, make_pin, why_emulated
from boardwright.model.host import Host

HOST = Host(
    architecture="x86_64",
    board="x86-64",
    cpu_features=frozenset({"avx2", "avx512_vnni", "vnni", "rep_good"}),
    runtimes={"onnxruntime": "1.31.1"},
)


def _pin(board: str, runtime: str, features: tuple[str, ...] = (), **overrides: str):  # type: ignore[no-untyped-def]
    entry = shipped_catalogue().board(board)
    return make_pin(entry, entry.runtime(runtime), "1.31.1", features, overrides)


def test_a_cpu_artifact_names_features_and_runtime() -> None:
    pin = _pin("x86-64", "onnxruntime", ("vnni",))
    assert (pin.board, pin.cpu_features, pin.runtime_version) == ("x86-64", ("vnni",), "1.31.1")
    assert why_emulated(pin, HOST) == []


def test_an_accelerators_architecture_is_in_the_pin() -> None:
    assert _pin("jetson-orin-nx", "tensorrt").accelerator == "sm_87"
    assert _pin("jetson-orin-nx", "onnxruntime").accelerator == ""


def test_what_is_elsewhere_can_be_said() -> None:
    pin = _pin("jetson-orin-nx", "tensorrt", bsp="L4T 36.4.3", runtime_version="10.3.0")
    assert (pin.bsp, pin.runtime_version) == ("L4T 36.4.3", "10.3.0")


def test_what_follows_from_the_board_cannot() -> None:
    with pytest.raises(PinRefused, match="architecture follows from the board"):
        _pin("x86-64", "onnxruntime", architecture="aarch64")


def test_a_figure_from_another_machine_is_emulated_and_says_why() -> None:
    why = why_emulated(_pin("raspberry-pi-5", "onnxruntime"), HOST)
    assert any("built for board raspberry-pi-5" in reason for reason in why)
    without = Host(architecture="x86_64", board="x86-64", runtimes={"onnxruntime": "1.31.1"})
    assert why_emulated(_pin("x86-64", "onnxruntime", ("vnni",)), without)


def test_the_hosts_own_pin_tells_only_features_that_matter() -> None:
    assert host_pin(HOST, "onnxruntime").cpu_features == ("avx2", "avx512_vnni", "vnni")
