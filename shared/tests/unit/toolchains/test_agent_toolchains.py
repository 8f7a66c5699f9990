"""The toolchains that wait for an agent: they refuse plainly, and their command lines are exact."""

from pathlib import Path

import pytest

from boardwright.testing.toolchain_contract import ToolchainContract
from boardwright.toolchains.catalogue import toolchain_named, toolchain_names
from boardwright.toolchains.errors import ToolchainError, ToolchainNeedsAgent
from boardwright.toolchains.litert import LiteRtVxToolchain
from boardwright.toolchains.port import BuildRequest, BuiltModel, Toolchain
from boardwright.toolchains.tensorrt import TensorRtToolchain
from boardwright.toolchains.tidl import TidlToolchain

GRAPH, OUT = Path("/in/int8.onnx"), Path("/out")


class TestTensorRt(ToolchainContract):
    @pytest.fixture
    def toolchain(self) -> Toolchain:
        return TensorRtToolchain()

    def test_strong_typing_is_the_default(self) -> None:
        request = BuildRequest(GRAPH, "jetson-orin-nx", "aarch64", OUT)
        assert TensorRtToolchain().vendor_commands(request) == (
            (
                "/usr/src/tensorrt/bin/trtexec",
                "--onnx=/in/int8.onnx",
                "--saveEngine=/out/model.plan",
                "--stronglyTyped",
                "--builderOptimizationLevel=3",
                "--timingCacheFile=/out/timing.cache",
                "--exportLayerInfo=/out/layers.json",
                "--profilingVerbosity=detailed",
                "--skipInference",
            ),
        )

    def test_mixed_precision_lets_the_rest_run_in_fp16(self) -> None:
        request = BuildRequest(GRAPH, "jetson-orin-nx", "aarch64", OUT, {"precision": "mixed"})
        (command,) = TensorRtToolchain().vendor_commands(request)
        assert command[3:5] == ("--int8", "--fp16") and "--stronglyTyped" not in command

    def test_an_engine_is_not_opened_elsewhere(self) -> None:
        built = BuiltModel((), "model.plan", "tensorrt", "10.3.0", {}, {})
        with pytest.raises(ToolchainNeedsAgent, match="Jetson"):
            TensorRtToolchain().open(built, 1)


class TestLiteRtVx(ToolchainContract):
    @pytest.fixture
    def toolchain(self) -> Toolchain:
        return LiteRtVxToolchain()

    def test_it_quantizes_per_tensor_and_checks_on_the_board(self) -> None:
        convert, check = LiteRtVxToolchain().vendor_commands(
            BuildRequest(GRAPH, "imx8m-plus", "aarch64", OUT)
        )
        assert convert == (
            *("onnx2tf", "--input_onnx_file_path", "/in/int8.onnx", "--output_folder_path", "/out"),
            *("--output_integer_quantized_tflite", "--quant_type", "per-tensor"),
            *("--custom_input_op_name_np_data_path", "input", "/out/calibration.npy", "0", "1"),
        )
        assert "--graph=/out/int8_full_integer_quant.tflite" in check
        assert "--external_delegate_path=/usr/lib/libvx_delegate.so" in check


class TestTidl(ToolchainContract):
    @pytest.fixture
    def toolchain(self) -> Toolchain:
        return TidlToolchain()

    def test_it_reads_the_graphs_own_scales_which_are_powers_of_two(self) -> None:
        (command,) = TidlToolchain().vendor_commands(BuildRequest(GRAPH, "sk-tda4vm", "aarch64", OUT))
        assert command == (
            *("tidlrunner-cli", "compile", "--model_path", "/in/int8.onnx", "--target_device", "TDA4VM"),
            *("--tensor_bits", "8", "--prequantized_model", "1", "--quantization_scale_type", "1"),
            *("--artifacts_folder", "/out/artifacts"),
        )

    def test_it_says_what_it_waits_for(self) -> None:
        told = TidlToolchain().availability()
        assert not told.available and "edgeai-tidl-tools" in told.waits_for and "licence" in told.waits_for


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(ToolchainError, match="Did you mean tensorrt") as caught:
        toolchain_named("tensor-rt")
    assert caught.value.reason == "TOOLCHAIN_UNKNOWN"


def test_every_name_is_found() -> None:
    assert [toolchain_named(name).name for name in toolchain_names()] == list(toolchain_names())
