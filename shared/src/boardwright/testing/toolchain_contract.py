"""What every toolchain must hold; inherit ``ToolchainContract`` and give it a ``toolchain`` fixture.

A toolchain that builds here is tried with real files in its real runtime. One that waits for an agent is held
to saying so: by its availability, by its refusal, and by the exact command in both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boardwright.testing import sample_graphs
from boardwright.toolchains.catalogue import toolchain_named
from boardwright.toolchains.errors import ToolchainError, ToolchainNeedsAgent
from boardwright.toolchains.port import BuildRequest, BuiltModel, Toolchain
from boardwright.toolchains.runtimes import open_model


class ToolchainContract:
    """Inherited by the tests of each toolchain."""

    @pytest.fixture
    def request_for(self, toolchain: Toolchain, tmp_path: Path) -> BuildRequest:
        """Return a request for the float classifier on the toolchain's first architecture."""
        graph = sample_graphs.write_classifier(tmp_path / "graph.onnx")
        out = tmp_path / "out"
        out.mkdir()
        return BuildRequest(graph, "some-board", toolchain.architectures[0], out)

    def test_it_is_in_the_catalogue_under_its_name(self, toolchain: Toolchain) -> None:
        assert type(toolchain_named(toolchain.name)) is type(toolchain)

    def test_an_unknown_option_is_refused_and_the_known_ones_named(
        self, toolchain: Toolchain, request_for: BuildRequest
    ) -> None:
        wrong = _replaced(request_for, options={"speed": "max"})
        with pytest.raises(ToolchainError, match="no option 'speed'") as caught:
            toolchain.build(wrong)
        assert caught.value.reason == "OPTION_INVALID"
        for name in toolchain.option_values:
            assert name in caught.value.message

    def test_a_wrong_value_is_refused_and_the_right_ones_named(
        self, toolchain: Toolchain, request_for: BuildRequest
    ) -> None:
        for name, values in toolchain.option_values.items():
            with pytest.raises(ToolchainError) as caught:
                toolchain.build(_replaced(request_for, options={name: "no-such-value"}))
            assert caught.value.reason == "OPTION_INVALID"
            assert all(str(value) in caught.value.message for value in values)

    def test_an_architecture_it_does_not_build_for_is_refused(
        self, toolchain: Toolchain, request_for: BuildRequest
    ) -> None:
        with pytest.raises(ToolchainError) as caught:
            toolchain.build(_replaced(request_for, architecture="riscv64"))
        assert caught.value.reason == "ARCHITECTURE_UNSUPPORTED"
        assert "riscv64" in caught.value.message

    def test_the_vendors_command_names_the_graph_and_the_folder(
        self, toolchain: Toolchain, request_for: BuildRequest
    ) -> None:
        commands = toolchain.vendor_commands(request_for)
        words = " ".join(word for command in commands for word in command)
        assert str(request_for.graph) in words and str(request_for.output_dir) in words
        assert commands == toolchain.vendor_commands(request_for)

    def test_it_builds_or_says_what_it_waits_for(
        self, toolchain: Toolchain, request_for: BuildRequest
    ) -> None:
        if toolchain.availability().available:
            built = toolchain.build(request_for)
            assert built.entry_path.is_file()
            assert built.runtime == toolchain.runtime and built.runtime_version
            assert sum(built.kernels.values()) > 0
            return
        with pytest.raises(ToolchainNeedsAgent) as caught:
            toolchain.build(request_for)
        assert caught.value.reason == "TOOLCHAIN_NEEDS_AGENT"
        assert caught.value.command == toolchain.vendor_commands(request_for)
        assert toolchain.availability().waits_for in caught.value.message
        assert list(request_for.output_dir.iterdir()) == []


class RunningToolchainContract(ToolchainContract):
    """For the toolchains that build and run on this machine.

    ``integer_convolution`` and ``float_convolutions`` are the runtime's names for its kernels.
    """

    integer_convolution = "QLinearConv"
    float_convolutions: tuple[str, ...] = ("Conv", "FusedConv")

    def _build(self, toolchain: Toolchain, graph: Path, out: Path) -> BuiltModel:
        out.mkdir()
        return toolchain.build(BuildRequest(graph, "some-board", toolchain.architectures[0], out))

    def test_it_is_available_with_a_version(self, toolchain: Toolchain) -> None:
        assert toolchain.availability().available and toolchain.availability().version

    @pytest.mark.parametrize("quantized", [False, True], ids=["float", "quantized"])
    def test_the_same_graph_gives_the_same_bytes(
        self, toolchain: Toolchain, tmp_path: Path, quantized: bool
    ) -> None:
        write = sample_graphs.write_quantized_classifier if quantized else sample_graphs.write_classifier
        graph = write(tmp_path / "graph.onnx")
        contents = {
            tuple(file.path.read_bytes() for file in self._build(toolchain, graph, tmp_path / str(i)).files)
            for i in range(4)
        }
        assert len(contents) == 1

    @pytest.mark.parametrize("quantized", [False, True], ids=["float", "quantized"])
    def test_what_it_built_computes_what_the_graph_says(
        self, toolchain: Toolchain, tmp_path: Path, quantized: bool
    ) -> None:
        from onnx.reference import ReferenceEvaluator

        path = tmp_path / "graph.onnx"
        if quantized:  # with 7-bit weights, whose sums saturate on no CPU
            graph = sample_graphs.write_quantized_classifier(path, weight_bits=7)
        else:
            graph = sample_graphs.write_classifier(path)
        session = toolchain.open(self._build(toolchain, graph, tmp_path / "out"), threads=1)
        reference = ReferenceEvaluator(str(graph))
        step = 6 / 255  # the quantized output's step
        for image in sample_graphs.sample_images(4):
            inputs = {sample_graphs.INPUT_NAME: image[None]}
            actual = session.run(inputs)[sample_graphs.OUTPUT_NAME]
            expected = reference.run(None, inputs)[0]
            np.testing.assert_allclose(actual, expected, atol=2.01 * step if quantized else 1e-4)

    def test_threads_do_not_change_the_result(self, toolchain: Toolchain, tmp_path: Path) -> None:
        built = self._build(toolchain, sample_graphs.write_classifier(tmp_path / "g.onnx"), tmp_path / "out")
        inputs = {sample_graphs.INPUT_NAME: sample_graphs.sample_images(1)}
        outputs = [toolchain.open(built, threads).run(inputs)["logits"] for threads in (0, 1, 2)]
        np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
        np.testing.assert_allclose(outputs[2], outputs[0], atol=1e-5)

    def test_quantized_operators_run_as_integers(self, toolchain: Toolchain, tmp_path: Path) -> None:
        graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx")
        built = self._build(toolchain, graph, tmp_path / "out")
        assert built.kernels[self.integer_convolution] == 2
        assert all(built.kernels.get(name, 0) == 0 for name in self.float_convolutions)
        assert built.integer_kernels == 3
        assert built.warnings == ()

    def test_a_float_graph_runs_no_integer_kernels(self, toolchain: Toolchain, tmp_path: Path) -> None:
        built = self._build(toolchain, sample_graphs.write_classifier(tmp_path / "g.onnx"), tmp_path / "out")
        assert built.integer_kernels == 0 and built.warnings == ()

    @pytest.mark.parametrize("quantized", [False, True], ids=["float", "quantized"])
    def test_other_kernels_compute_nearly_the_same(
        self, toolchain: Toolchain, tmp_path: Path, quantized: bool
    ) -> None:
        path = tmp_path / "graph.onnx"
        if quantized:
            graph = sample_graphs.write_quantized_classifier(path, weight_bits=7)
        else:
            graph = sample_graphs.write_classifier(path)
        built = self._build(toolchain, graph, tmp_path / "out")
        others = toolchain.open_alternatives(graph, built)
        inputs = {sample_graphs.INPUT_NAME: sample_graphs.sample_images(1)}
        expected = toolchain.open(built, 1).run(inputs)
        assert others
        for other in others:
            actual = other.run(inputs)
            assert actual.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_allclose(actual[name], array, atol=2.01 * 6 / 255 if quantized else 1e-4)

    def test_the_runtime_is_opened_by_its_name(self, toolchain: Toolchain, tmp_path: Path) -> None:
        """As an agent and a measurement do: from the files, which need not keep their names."""
        built = self._build(toolchain, sample_graphs.write_classifier(tmp_path / "g.onnx"), tmp_path / "out")
        inputs = {sample_graphs.INPUT_NAME: sample_graphs.sample_images(1)}
        expected = toolchain.open(built, 1).run(inputs)
        paths = [tmp_path / f"input-{number}" for number in range(len(built.files))]
        for file, path in zip(built.files, paths, strict=True):
            path.write_bytes(file.path.read_bytes())
        assert built.files[0].name == built.entry
        weights = paths[1] if len(paths) > 1 else None
        opened = open_model(toolchain.runtime, paths[0], built.runtime_settings, 1, weights)
        for name, array in opened.run(inputs).items():
            np.testing.assert_array_equal(array, expected[name])

    def test_outputs_belong_to_the_caller(self, toolchain: Toolchain, tmp_path: Path) -> None:
        built = self._build(toolchain, sample_graphs.write_classifier(tmp_path / "g.onnx"), tmp_path / "out")
        session = toolchain.open(built, threads=1)
        first, second = sample_graphs.sample_images(2)
        outputs = session.run({sample_graphs.INPUT_NAME: first[None]})
        kept = {name: array.copy() for name, array in outputs.items()}
        session.run({sample_graphs.INPUT_NAME: second[None]})
        for name, array in outputs.items():
            np.testing.assert_array_equal(array, kept[name])

    def test_an_open_batch_stays_open(self, toolchain: Toolchain, tmp_path: Path) -> None:
        graph = sample_graphs.write_classifier(tmp_path / "g.onnx", batch="N")
        session = toolchain.open(self._build(toolchain, graph, tmp_path / "out"), threads=1)
        assert session.inputs[0].shape == (None, 3, sample_graphs.SIDE, sample_graphs.SIDE)
        assert session.outputs[0].name == sample_graphs.OUTPUT_NAME
        images = sample_graphs.sample_images(3)
        together = session.run({sample_graphs.INPUT_NAME: images})[sample_graphs.OUTPUT_NAME]
        alone = session.run({sample_graphs.INPUT_NAME: images[2:]})[sample_graphs.OUTPUT_NAME]
        np.testing.assert_allclose(together[2:], alone, atol=1e-5)

    def test_inputs_that_do_not_fit_are_refused(self, toolchain: Toolchain, tmp_path: Path) -> None:
        built = self._build(toolchain, sample_graphs.write_classifier(tmp_path / "g.onnx"), tmp_path / "out")
        session = toolchain.open(built, threads=1)
        image = sample_graphs.sample_images(1)
        for inputs, told in (
            ({"picture": image}, "image"),
            ({"image": image[:, :2]}, "3, 16, 16"),
            ({"image": image.astype(np.float64)}, "float32"),
        ):
            with pytest.raises(ToolchainError, match=told) as caught:
                session.run(inputs)
            assert caught.value.reason == "INPUT_MISMATCH"

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other"])
    def test_a_damaged_file_is_refused(self, toolchain: Toolchain, tmp_path: Path, damage: str) -> None:
        graph = sample_graphs.write_classifier(tmp_path / "g.onnx")
        content = bytearray(graph.read_bytes())
        if damage == "truncated":
            content = content[: len(content) // 2]
        elif damage == "flipped":
            content[2] ^= 0xFF
        else:
            content = bytearray(b"" if damage == "empty" else b"\x80\x04 not a graph")
        graph.write_bytes(content)
        with pytest.raises(ToolchainError) as caught:
            self._build(toolchain, graph, tmp_path / "out")
        assert caught.value.reason == "GRAPH_UNREADABLE"

    def test_weights_outside_the_file_are_refused(self, toolchain: Toolchain, tmp_path: Path) -> None:
        graph = sample_graphs.write_with_external_weights(tmp_path / "g.onnx")
        with pytest.raises(ToolchainError, match=r"conv0\.weight") as caught:
            self._build(toolchain, graph, tmp_path / "out")
        assert caught.value.reason == "GRAPH_EXTERNAL_DATA"

    def test_an_operator_without_a_kernel_is_named(self, toolchain: Toolchain, tmp_path: Path) -> None:
        graph = sample_graphs.write_with_unknown_operator(tmp_path / "g.onnx")
        with pytest.raises(ToolchainError, match="FrobnicateImage") as caught:
            self._build(toolchain, graph, tmp_path / "out")
        assert caught.value.reason == "GRAPH_UNSUPPORTED"


def _replaced(request: BuildRequest, **changes: object) -> BuildRequest:
    from dataclasses import replace

    return replace(request, **changes)  # type: ignore[arg-type]
