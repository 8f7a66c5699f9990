"""The toolchains that build and run here, against the contract and for what is their own."""

from pathlib import Path

import pytest

from boardwright.testing import sample_graphs
from boardwright.testing.toolchain_contract import RunningToolchainContract
from boardwright.toolchains.onnx_runtime import OnnxRuntimeToolchain
from boardwright.toolchains.openvino import OpenVinoToolchain
from boardwright.toolchains.openvino_session import runtime_version
from boardwright.toolchains.ort_format import OrtFormatToolchain
from boardwright.toolchains.port import BuildRequest, Toolchain


def _request(tmp_path: Path, graph: Path, architecture: str, **options: object) -> BuildRequest:
    out = tmp_path / f"out-{architecture}-{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    return BuildRequest(graph, "board", architecture, out, options)


class TestOnnxRuntime(RunningToolchainContract):
    @pytest.fixture
    def toolchain(self) -> Toolchain:
        return OnnxRuntimeToolchain()

    def test_without_optimization_the_graph_travels_unchanged(
        self, toolchain: Toolchain, tmp_path: Path
    ) -> None:
        graph = sample_graphs.write_classifier(tmp_path / "g.onnx")
        built = toolchain.build(_request(tmp_path, graph, "x86_64", optimization="none"))
        assert built.entry_path.read_bytes() == graph.read_bytes()

    def test_signed_activations_become_unsigned_on_x86_and_stay_signed_on_arm(
        self, toolchain: Toolchain, tmp_path: Path
    ) -> None:
        from boardwright.toolchains.graph import read_graph

        graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx", activation_type="int8")
        kinds = {
            architecture: read_graph(
                toolchain.build(_request(tmp_path, graph, architecture)).entry_path
            ).precision.activation_types
            for architecture in ("x86_64", "aarch64")
        }
        assert kinds == {"x86_64": ("uint8",), "aarch64": ("int8",)}

    def test_vnni_is_needed_on_x86_only_where_eight_bit_weights_would_saturate(
        self, toolchain: Toolchain, tmp_path: Path
    ) -> None:
        wide = sample_graphs.write_quantized_classifier(tmp_path / "wide.onnx")
        narrow = sample_graphs.write_quantized_classifier(tmp_path / "narrow.onnx", weight_bits=7)
        plain = sample_graphs.write_classifier(tmp_path / "plain.onnx")
        needs = [
            toolchain.build(_request(tmp_path, graph, architecture)).cpu_features
            for graph, architecture in (
                (wide, "x86_64"),
                (narrow, "x86_64"),
                (plain, "x86_64"),
                (wide, "aarch64"),
            )
        ]
        assert needs == [("vnni",), (), (), ()]

    def test_integer_kernels_are_counted(self, toolchain: Toolchain, tmp_path: Path) -> None:
        graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx")
        assert toolchain.build(_request(tmp_path, graph, "x86_64")).integer_kernels == 3


class TestOrtFormat(RunningToolchainContract):
    @pytest.fixture
    def toolchain(self) -> Toolchain:
        return OrtFormatToolchain()

    def test_its_command_is_onnx_runtimes_own_converter(self, toolchain: Toolchain, tmp_path: Path) -> None:
        request = BuildRequest(tmp_path / "graph.onnx", "raspberry-pi-5", "aarch64", tmp_path / "out")
        assert toolchain.vendor_commands(request) == (
            (
                *("python", "-m", "onnxruntime.tools.convert_onnx_models_to_ort"),
                *("--optimization_style", "Fixed", "--target_platform", "arm"),
                *("--output_dir", str(tmp_path / "out"), str(tmp_path / "graph.onnx")),
            ),
        )

    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # their converter leaves a file open
    def test_it_equals_what_onnx_runtimes_converter_writes(
        self, toolchain: Toolchain, tmp_path: Path
    ) -> None:
        """Up to the order of unordered parts, which is what ``canonical`` takes away."""
        import contextlib
        import io

        from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

        from boardwright.toolchains.ort_flatbuffer import canonical

        graph = sample_graphs.write_quantized_classifier(tmp_path / "graph.onnx", activation_type="int8")
        built = toolchain.build(_request(tmp_path, graph, "aarch64"))
        with contextlib.redirect_stdout(io.StringIO()):
            convert_onnx_models_to_ort(
                graph, tmp_path / "theirs", [OptimizationStyle.Fixed], target_platform="arm"
            )
        theirs = (tmp_path / "theirs" / "graph.ort").read_bytes()
        assert canonical(theirs) == built.entry_path.read_bytes()


@pytest.mark.skipif(not runtime_version(), reason="OpenVINO is not installed (pip install openvino)")
class TestOpenVino(RunningToolchainContract):
    integer_convolution = "Convolution:int8"
    float_convolutions = ("Convolution:f32", "Convolution:bf16")

    @pytest.fixture
    def toolchain(self) -> Toolchain:
        return OpenVinoToolchain()

    def test_two_files_are_built_the_one_that_is_opened_first(
        self, toolchain: Toolchain, tmp_path: Path
    ) -> None:
        graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx")
        built = toolchain.build(_request(tmp_path, graph, "x86_64"))
        assert [file.name for file in built.files] == ["model.xml", "model.bin"]
        weights = built.files[1].path.stat().st_size
        assert weights < 2 * graph.stat().st_size  # int8 weights stay int8

    def test_floats_stay_float32_on_every_cpu(self, toolchain: Toolchain, tmp_path: Path) -> None:
        graph = sample_graphs.write_classifier(tmp_path / "g.onnx")
        built = toolchain.build(_request(tmp_path, graph, "x86_64"))
        assert built.runtime_settings["inference_precision"] == "f32"
        assert built.kernels["Convolution:f32"] == 2
        assert not [name for name in built.kernels if name.endswith(("bf16", "f16"))]

    def test_layers_keep_the_graphs_names_and_no_counters(self, toolchain: Toolchain, tmp_path: Path) -> None:
        import re

        graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx")
        text = toolchain.build(_request(tmp_path, graph, "x86_64")).entry_path.read_text(encoding="utf-8")
        names = re.findall(r'<layer id="\d+" name="([^"]*)"', text)
        assert {"image", "logits/sink_port_0"} <= set(names) and any(n.startswith("conv0") for n in names)
        assert not [name for name in names if re.fullmatch(r"[A-Z][A-Za-z]+_\d+", name)]

    def test_vnni_is_needed_only_where_eight_bit_weights_would_saturate(
        self, toolchain: Toolchain, tmp_path: Path
    ) -> None:
        wide = sample_graphs.write_quantized_classifier(tmp_path / "wide.onnx")
        narrow = sample_graphs.write_quantized_classifier(tmp_path / "narrow.onnx", weight_bits=7)
        needs = [toolchain.build(_request(tmp_path, g, "x86_64")).cpu_features for g in (wide, narrow)]
        assert needs == [("vnni",), ()]

    def test_its_makers_are_told_nothing(self, tmp_path: Path) -> None:
        """Importing OpenVINO the plain way writes an id for its statistics into the home folder."""
        import os
        import subprocess
        import sys

        program = "from boardwright.toolchains.openvino_session import import_openvino as i; i().Core()"
        environment = {**os.environ, "HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120)
        assert list(tmp_path.iterdir()) == []

    def test_a_runtime_that_is_not_opened_here_is_named(self, tmp_path: Path) -> None:
        from boardwright.toolchains.errors import ToolchainError
        from boardwright.toolchains.runtimes import open_model

        with pytest.raises(ToolchainError, match="tensorrt") as caught:
            open_model("tensorrt", tmp_path / "model.engine", {})
        assert caught.value.reason == "RUNTIME_UNKNOWN"

    def test_a_damaged_topology_is_refused(self, toolchain: Toolchain, tmp_path: Path) -> None:
        from boardwright.toolchains.errors import ToolchainError

        graph = sample_graphs.write_classifier(tmp_path / "g.onnx")
        built = toolchain.build(_request(tmp_path, graph, "x86_64"))
        built.entry_path.write_text("<net", encoding="utf-8")
        with pytest.raises(ToolchainError) as caught:
            toolchain.open(built, threads=1)
        assert caught.value.reason == "GRAPH_UNREADABLE"
