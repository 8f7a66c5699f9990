"""Real networks build for an x86-64 and for an Arm board, the same bytes twice, and are measured here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from boardwright.jobs.step_api import StepResult
from boardwright.model.golden import GoldenSamples
from boardwright.model.input_spec import InputSpec
from boardwright.toolchains.catalogue import toolchain_named
from boardwright.toolchains.runtimes import open_model

pytestmark = pytest.mark.data

Build = Callable[..., StepResult]

MOBILENET = InputSpec(
    name="input",
    height=224,
    width=224,
    scale=1 / 127.5,
    mean=(1.0, 1.0, 1.0),
    resize="center-crop",
    resize_shorter=256,
)
YOLO = InputSpec(name="images", height=640, width=640, resize="letterbox")
NETWORKS = {"mobilenet_v1_0.75_224.onnx": MOBILENET, "yolov5n.onnx": YOLO}


@pytest.fixture
def models() -> Path:
    """Return the folder of real models."""
    folder = Path(__file__).parents[5] / "shared" / "data" / "models"
    if not folder.is_dir():
        pytest.skip("the real models of ../shared/data are not here")
    return folder


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("board", "toolchain", "entry"),
    [
        ("x86-64", "onnxruntime", "model.onnx"),
        ("x86-64", "openvino", "model.xml"),
        ("raspberry-pi-5", "ort-format", "model.ort"),
    ],
)
def test_it_builds_the_same_for_both_boards(
    run_build: Build, models: Path, name: str, board: str, toolchain: str, entry: str
) -> None:
    if not toolchain_named(toolchain).availability().available:
        pytest.skip(toolchain_named(toolchain).availability().waits_for)
    builds = [run_build(models / name, board, toolchain, NETWORKS[name], golden_samples=1) for _ in range(2)]
    contents = [{n: f.path.read_bytes() for n, f in build.outputs.items()} for build in builds]
    assert contents[0] == contents[1]
    assert builds[0].values["report"]["supported"] and builds[0].values["report"]["refusals"] == []
    golden = GoldenSamples.from_bytes(contents[0]["golden.npz"])
    runtime = toolchain_named(toolchain).runtime
    session = open_model(runtime, builds[0].outputs[entry].path, builds[0].values["runtime_settings"])
    assert golden.check(session.run).passed
