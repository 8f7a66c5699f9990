"""The training steps: train-quantized and fine-tune; killed, in the real step process."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from boardwright.compiler.engine.export import export_network
from boardwright.jobs.step_api import StepError
from boardwright.model import InputSpec, OutputSpec

SPEC = InputSpec(height=16, width=16, batch=1, resize="stretch")


@pytest.fixture
def imported(tmp_path: Path) -> dict[str, Path]:
    """An untrained network as the step import leaves it."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    specs = {
        "input-spec.json": SPEC.to_json(),
        "output-spec.json": OutputSpec(task="classification", head="logits", num_classes=3).to_json(),
    }
    for name, document in specs.items():
        (tmp_path / name).write_text(json.dumps(document))
    onnx.save(export_network(network, SPEC), tmp_path / "model.onnx")
    return {name: tmp_path / name for name in ("model.onnx", *specs)}


def test_fine_tune_learns_labels_and_leaves_a_checkpoint(tmp_path, run_here, imported, seal, coloured):
    sealed = seal(coloured(24, 1), "classification", tmp_path / "training", "training")
    parameters = {
        "epochs": 20, "batch_size": 8, "learning_rate": 0.03, "class_weights": "inverse", "held_out": 0.0,
    }  # fmt: skip
    done = run_here("compile/fine-tune", parameters, {**imported, **sealed})
    assert (done.values["objective"], done.values["dataset"]) == ("labels", "training")
    assert done.values["objective_after"] < done.values["objective_before"] / 2
    assert done.outputs["model.onnx"].path.read_bytes() == done.outputs["checkpoint"].path.read_bytes()
    record = json.loads(done.outputs["fine-tuning.json"].path.read_text())
    assert record["training"]["steps"] == record["training"]["steps_planned"] == 60
    assert record["training"]["options"]["learning_rate"] == 0.03


def test_train_quantized_needs_no_labels_and_gives_ranges_and_weights(
    tmp_path, run_here, imported, seal, coloured
):
    sealed = seal(coloured(24, 1), "classification", tmp_path / "calibration", "calibration")
    parameters = {
        "profile": "vx-delegate", "epochs": 2, "batch_size": 8, "held_out": 0.25, "class_weights": "inverse",
        "fail_if_information_lost": False,
    }  # fmt: skip
    done = run_here("compile/train-quantized", parameters, {**imported, **sealed})
    assert done.values["objective"] == "self-distilled"
    assert done.values["scheme"] == "S8S8 per-tensor"
    assert done.values["calibration_samples"] == 24
    assert done.values["held_out_samples"] == 6
    assert any("class_weights had no effect" in warning for warning in done.warnings)
    assert len(done.values["judged"]) == 3
    assert done.values["objective_after"] == pytest.approx(min(done.values["judged"]), rel=1e-4)
    assert any(n.op_type == "QuantizeLinear" for n in onnx.load(done.outputs["model.onnx"].path).graph.node)
    trained = onnx.load(done.outputs["trained.onnx"].path)
    assert not any(node.op_type == "QuantizeLinear" for node in trained.graph.node)
    record = json.loads(done.outputs["calibration-record.json"].path.read_text())
    assert record["method"] == "trained"


KILLED_AFTER_THE_FIRST_STATE = """
import os, signal

replace = os.replace

def replace_and_die(source, place):
    replace(source, place)
    if os.path.basename(place) == "training":
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace_and_die
"""


async def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    tmp_path, run_step, imported, seal, coloured
):
    sealed = seal(coloured(24, 1), "classification", tmp_path / "calibration", "calibration")
    parameters = {
        "epochs": 4, "batch_size": 8, "held_out": 0.25, "average": 0.9, "fail_if_information_lost": False,
    }  # fmt: skip
    kind, inputs = "compile/train-quantized", {**imported, **sealed}
    whole = await run_step(kind, parameters, inputs)
    state, killing = tmp_path / "state", tmp_path / "killing"
    for folder in (state, killing):
        folder.mkdir()
    (killing / "sitecustomize.py").write_text(KILLED_AFTER_THE_FIRST_STATE)
    with pytest.raises(StepError, match="SIGKILL") as caught:
        await run_step(kind, parameters, inputs, state_dir=state, python_path=(str(killing),))
    assert not caught.value.deterministic  # so it is tried again
    again = await run_step(kind, parameters, inputs, state_dir=state)
    assert "Training was interrupted and went on after epoch 1 of it." in again.warnings
    assert {**again.values} == {**whole.values}
    assert again.outputs.keys() == whole.outputs.keys()
    for name, output in again.outputs.items():
        assert output.path.read_bytes() == whole.outputs[name].path.read_bytes(), name
