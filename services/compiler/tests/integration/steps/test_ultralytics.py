"""An Ultralytics checkpoint through the real import step: restricted loading, offline, end-to-end head."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import onnx
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ultralytics") is None, reason="needs boardwright-compiler[ultralytics]"
    ),
    pytest.mark.filterwarnings("ignore"),  # torch's and Ultralytics' own, while the checkpoint is made
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A yolo26n with random weights, as Ultralytics saves it."""
    from boardwright.compiler.engine.checkpoint.ultralytics_file import prepare_ultralytics

    path = tmp_path_factory.mktemp("yolo") / "best.pt"
    yolo = prepare_ultralytics().YOLO("yolo26n.yaml")
    yolo.model.names = {number: f"thing {number}" for number in range(80)}
    yolo.ckpt = {"train_args": {"imgsz": 160}}  # as training leaves it
    yolo.save(path)
    return path


async def test_a_yolo_needs_no_specs_and_comes_out_end_to_end_and_the_same_each_time(
    run_step, run_here, checkpoint
):
    imported = await run_step("compile/import", {}, {"checkpoint": checkpoint})
    assert imported.values["format"] == "ultralytics"
    spec = json.loads(imported.outputs["input-spec.json"].path.read_text())
    assert (spec["height"], spec["resize"], spec["name"], spec["batch"]) == (160, "letterbox", "images", 1)
    output = json.loads(imported.outputs["output-spec.json"].path.read_text())
    assert (output["head"], output["num_classes"]) == ("yolo-end2end", 80)
    assert output["labels"][3] == "thing 3"
    model = onnx.load(imported.outputs["model.onnx"].path)
    assert not model.metadata_props
    assert str(checkpoint.parent) not in str(model)
    again = run_here("compile/import", {}, {"checkpoint": checkpoint})
    assert again.outputs["model.onnx"].path.read_bytes() == imported.outputs["model.onnx"].path.read_bytes()


def test_a_declared_spec_sets_the_size(run_here, checkpoint):
    declared = {"height": 128, "width": 192, "resize": "letterbox"}
    imported = run_here("compile/import", {"input_spec": declared}, {"checkpoint": checkpoint})
    model = onnx.load(imported.outputs["model.onnx"].path)
    (value,) = model.graph.input
    assert value.name == "input"
    assert [axis.dim_value for axis in value.type.tensor_type.shape.dim] == [1, 3, 128, 192]
