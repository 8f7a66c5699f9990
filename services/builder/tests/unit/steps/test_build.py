"""build/build: files that work, the same bytes again, and clear refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boardwright.jobs.step_api import InputFile, StepError, StepResult
from boardwright.model.golden import GoldenSamples
from boardwright.model.host import detect_host
from boardwright.model.input_spec import InputSpec
from boardwright.model.pins import HardwarePin, mismatches
from boardwright.testing import sample_graphs
from boardwright.toolchains.openvino_session import runtime_version as openvino_version
from boardwright.toolchains.ort_session import open_session
from boardwright.toolchains.runtimes import open_model

Build = Callable[..., StepResult]


def _contents(result: StepResult) -> dict[str, bytes]:
    return {name: file.path.read_bytes() for name, file in result.outputs.items()}


@pytest.mark.parametrize(
    ("board", "toolchain", "model"),
    [("x86-64", "onnxruntime", "model.onnx"), ("raspberry-pi-5", "ort-format", "model.ort")],
)
@pytest.mark.parametrize("quantized", [False, True], ids=["float", "quantized"])
def test_a_build_is_whole_and_the_same_every_time(
    run_build: Build, tmp_path: Path, board: str, toolchain: str, model: str, quantized: bool
) -> None:
    write = sample_graphs.write_quantized_classifier if quantized else sample_graphs.write_classifier
    graph = write(tmp_path / "g.onnx")
    first, second = (run_build(graph, board, toolchain) for _ in range(2))
    assert _contents(first) == _contents(second)
    assert first.values == second.values
    assert set(first.outputs) == {model, "golden.npz", "compatibility.json", "pin.json", "runtime.json"}
    assert first.values["entry"] == model
    assert first.values["model_size_bytes"] == len(_contents(first)[model])


def test_the_golden_samples_pass_in_the_runtime_and_a_wrong_model_does_not(
    run_build: Build, tmp_path: Path
) -> None:
    result = run_build(sample_graphs.write_quantized_classifier(tmp_path / "g.onnx"))
    golden = GoldenSamples.from_bytes(_contents(result)["golden.npz"])
    assert len(golden) == 4
    session = open_session(result.outputs["model.onnx"].path, result.values["runtime_settings"])
    assert golden.check(session.run).passed
    other = run_build(sample_graphs.write_quantized_classifier(tmp_path / "n.onnx", weight_bits=2))
    wrong = open_session(other.outputs["model.onnx"].path, other.values["runtime_settings"])
    assert not golden.check(wrong.run).passed


def test_the_pin_of_this_board_fits_this_machine(run_build: Build, tmp_path: Path) -> None:
    result = run_build(sample_graphs.write_quantized_classifier(tmp_path / "g.onnx"))
    pin = HardwarePin.from_json(_contents(result)["pin.json"])
    host = detect_host()
    assert pin.cpu_features == ("vnni",)
    if "vnni" in host.cpu_features:
        assert mismatches(pin, host) == []
    assert pin == HardwarePin.from_json(result.values["pin"])


def test_a_build_for_another_board_does_not_fit_this_machine(run_build: Build, tmp_path: Path) -> None:
    result = run_build(sample_graphs.write_classifier(tmp_path / "g.onnx"), "raspberry-pi-5", "ort-format")
    assert mismatches(HardwarePin.from_json(_contents(result)["pin.json"]), detect_host())
    assert result.values["report"]["golden_samples"]["emulated"] is True


def test_the_report_tells_operators_kernels_and_tolerance(run_build: Build, tmp_path: Path) -> None:
    result = run_build(sample_graphs.write_quantized_classifier(tmp_path / "g.onnx"))
    report = json.loads(_contents(result)["compatibility.json"])
    assert report["supported"] and report["precision"] == "U8S8"
    assert {entry["operator"]: entry["placement"] for entry in report["operators"]}["Conv"] == "cpu"
    assert report["integer_kernels"] == 3 and report["kernels"]["QLinearConv"] == 2
    assert "seeded noise" in report["golden_samples"]["source"]
    assert "absolute" in report["golden_samples"]["tolerance"]


def test_golden_inputs_can_come_from_a_dataset(run_build: Build, tmp_path: Path) -> None:
    from PIL import Image

    from boardwright.content import Digest

    images = tmp_path / "images"
    for label in ("cat", "dog"):
        (images / label).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / label / f"{number}.png")
    packs = tmp_path / "packs"
    packs.mkdir()
    manifest, files = _sealed(images, packs)
    given = {"golden": InputFile(manifest, str(Digest.of(manifest.read_bytes())), "application/json")}
    for number, (digest, path) in enumerate(files.items()):
        given[f"golden.pack-{number}"] = InputFile(path, digest, "application/x-tar")
    graph = sample_graphs.write_classifier(tmp_path / "g.onnx")
    result = run_build(graph, inputs=given, golden_samples=3)
    golden = GoldenSamples.from_bytes(_contents(result)["golden.npz"])
    assert len(golden) == 3 and golden.inputs["image"].shape == (3, 3, 16, 16)
    assert "dataset sha256:" in result.values["report"]["golden_samples"]["source"]


def _sealed(images: Path, packs: Path) -> tuple[Path, dict[str, Path]]:
    """Seal a folder of images as the calibration service would."""
    from boardwright.samples import DatasetManifest, ManifestSample, PackEntry, read_layout, write_packs

    written = list(write_packs(read_layout(images), packs))
    entries = sorted((PackEntry(pack.digest, pack.size_bytes) for pack in written), key=lambda p: p.digest)
    numbers = {entry.digest: index for index, entry in enumerate(entries)}
    samples = tuple(
        sorted(
            (
                ManifestSample(
                    s.name,
                    s.digest,
                    s.size_bytes,
                    s.media_type,
                    numbers[s.pack_digest],
                    s.pack_offset,
                    s.label,
                )
                for pack in written
                for s in pack.samples
            ),
            key=lambda sample: sample.name,
        )
    )
    manifest = packs / "manifest.json"
    manifest.write_bytes(
        DatasetManifest("classification", ("cat", "dog"), tuple(entries), samples).to_bytes()
    )
    return manifest, {pack.digest: pack.path for pack in written}


@pytest.mark.parametrize(
    ("board", "toolchain", "reason", "told"),
    [
        ("jetson-orin-nx", "tensorrt", "TOOLCHAIN_NEEDS_AGENT", "trtexec --onnx="),
        ("imx8m-plus", "litert-vx", "TOOLCHAIN_NEEDS_AGENT", "onnx2tf"),
        ("sk-tda4vm", "tidl", "TOOLCHAIN_NEEDS_AGENT", "tidlrunner-cli compile"),
        ("raspberry-pi-5", "tensorrt", "TOOLCHAIN_NOT_FOR_BOARD", "ort-format, onnxruntime"),
        ("raspberry-pi-55", "ort-format", "BOARD_NOT_FOUND", "raspberry-pi-5"),
        ("x86-64", "onnx-runtime", "TOOLCHAIN_UNKNOWN", "onnxruntime"),
    ],
)
def test_what_cannot_be_built_is_refused_plainly(
    run_build: Build, tmp_path: Path, board: str, toolchain: str, reason: str, told: str
) -> None:
    graph = sample_graphs.write_classifier(tmp_path / "g.onnx")
    with pytest.raises(StepError) as caught:
        run_build(graph, board, toolchain)
    assert caught.value.reason == reason and caught.value.deterministic
    assert told in caught.value.message


def test_a_graph_quantized_for_other_kernels_is_refused(run_build: Build, tmp_path: Path) -> None:
    graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx")
    with pytest.raises(StepError, match="zero point 0 only") as caught:
        run_build(graph, "jetson-orin-nx", "tensorrt")
    assert caught.value.reason == "PROFILE_MISMATCH"


def test_an_operator_that_no_kernel_computes_is_named(run_build: Build, tmp_path: Path) -> None:
    graph = sample_graphs.write_with_unknown_operator(tmp_path / "g.onnx")
    with pytest.raises(StepError, match="FrobnicateImage of acme") as caught:
        run_build(graph)
    assert caught.value.reason == "GRAPH_UNSUPPORTED"


@pytest.mark.parametrize(
    ("spec", "reason", "told"),
    [
        (InputSpec(name="picture", height=16, width=16), "INPUT_SPEC_DOES_NOT_FIT", "picture"),
        (InputSpec(name="image", height=32, width=16), "INPUT_SPEC_DOES_NOT_FIT", "height"),
        (InputSpec(name="image", height=16, width=16, layout="NHWC"), "INPUT_SPEC_DOES_NOT_FIT", "NCHW"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(
    run_build: Build, tmp_path: Path, spec: InputSpec, reason: str, told: str
) -> None:
    with pytest.raises(StepError, match=told) as caught:
        run_build(sample_graphs.write_classifier(tmp_path / "g.onnx"), spec=spec)
    assert caught.value.reason == reason


def test_a_fixed_batch_is_refused(run_build: Build, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="4 images at once") as caught:
        run_build(sample_graphs.write_classifier(tmp_path / "g.onnx", batch=4))
    assert caught.value.reason == "GRAPH_BATCH_UNSUPPORTED"


def test_a_free_batch_is_built_for_one_image(run_build: Build, tmp_path: Path) -> None:
    result = run_build(sample_graphs.write_classifier(tmp_path / "g.onnx", batch="n"))
    assert GoldenSamples.from_bytes(_contents(result)["golden.npz"]).inputs["image"].shape[0] == 4


def test_a_pin_that_contradicts_the_board_is_refused(run_build: Build, tmp_path: Path) -> None:
    graph = sample_graphs.write_classifier(tmp_path / "g.onnx")
    with pytest.raises(StepError, match="architecture") as caught:
        run_build(graph, pin={"architecture": "riscv64"})
    assert caught.value.reason == "PIN_INVALID"


@pytest.mark.skipif(not openvino_version(), reason="OpenVINO is not installed (pip install openvino)")
class TestOpenVino:
    """The second runtime of the x86-64 board, through the same step."""

    @pytest.mark.parametrize("quantized", [False, True], ids=["float", "quantized"])
    def test_a_build_is_whole_and_the_same_every_time(
        self, run_build: Build, tmp_path: Path, quantized: bool
    ) -> None:
        write = sample_graphs.write_quantized_classifier if quantized else sample_graphs.write_classifier
        graph = write(tmp_path / "g.onnx")
        first, second = (run_build(graph, "x86-64", "openvino") for _ in range(2))
        assert _contents(first) == _contents(second)
        assert first.values == second.values
        assert first.values["entry"] == "model.xml" and first.values["files"] == ["model.xml", "model.bin"]
        contents = _contents(first)
        assert first.values["model_size_bytes"] == len(contents["model.xml"]) + len(contents["model.bin"])

    def test_the_golden_samples_pass_in_the_runtime_and_a_wrong_model_does_not(
        self, run_build: Build, tmp_path: Path
    ) -> None:
        graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx", weight_bits=7)
        result = run_build(graph, "x86-64", "openvino")
        golden = GoldenSamples.from_bytes(_contents(result)["golden.npz"])
        verdicts = []
        for bits in (7, 2):
            graph = sample_graphs.write_quantized_classifier(tmp_path / f"{bits}.onnx", weight_bits=bits)
            built = run_build(graph, "x86-64", "openvino")
            session = open_model(
                "openvino", built.outputs["model.xml"].path, built.values["runtime_settings"]
            )
            verdicts.append(golden.check(session.run).passed)
        assert verdicts == [True, False]

    def test_the_pin_names_the_runtime_and_what_its_kernels_need(
        self, run_build: Build, tmp_path: Path
    ) -> None:
        narrow = sample_graphs.write_quantized_classifier(tmp_path / "n.onnx", weight_bits=7)
        wide = sample_graphs.write_quantized_classifier(tmp_path / "w.onnx")
        pins = [
            HardwarePin.from_json(_contents(run_build(graph, "x86-64", "openvino"))["pin.json"])
            for graph in (narrow, wide)
        ]
        assert {(pin.board, pin.runtime, pin.runtime_version) for pin in pins} == {
            ("x86-64", "openvino", openvino_version())
        }
        assert [pin.cpu_features for pin in pins] == [(), ("vnni",)]
        host = detect_host()
        if host.board == "x86-64":
            assert mismatches(pins[0], host) == []
            assert mismatches(replace(pins[0], runtime_version="2020.1"), host)

    def test_the_report_tells_which_layers_run_on_integers(self, run_build: Build, tmp_path: Path) -> None:
        graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx")
        report = run_build(graph, "x86-64", "openvino").values["report"]
        assert report["runtime"] == "openvino" and report["precision"] == "U8S8"
        assert report["integer_kernels"] == 3
        assert report["kernels"]["Convolution:int8"] == 2 and report["kernels"]["FullyConnected:int8"] == 1
        assert report["golden_samples"]["expected_from"].startswith("openvino ")

    def test_an_operator_that_it_does_not_read_is_named(self, run_build: Build, tmp_path: Path) -> None:
        graph = sample_graphs.write_with_unknown_operator(tmp_path / "g.onnx")
        with pytest.raises(StepError, match="FrobnicateImage") as caught:
            run_build(graph, "x86-64", "openvino")
        assert caught.value.reason == "GRAPH_UNSUPPORTED"
