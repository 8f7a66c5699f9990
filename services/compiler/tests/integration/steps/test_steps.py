"""The steps: files in, files out; in the real step process where network, memory or hostility matter."""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnx
import pytest
import torch

from boardwright.jobs.step_api import StepError

NETWORK = """
import torch

def build_network():
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1, groups=3), torch.nn.ReLU())
    torch.nn.init.dirac_(body[0].weight, groups=3)
    body[0].bias.data.zero_()
    return torch.nn.Sequential(body, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head())

def head():
    layer = torch.nn.Linear(3, 3)
    layer.weight.data = 20 * torch.eye(3)
    layer.bias.data.zero_()
    return layer
"""
SPEC = {"height": 16, "width": 16, "resize": "stretch"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> dict[str, Path]:
    """A state dict and the module that builds its network."""
    module = tmp_path / "net"
    module.write_text(NETWORK)
    scope: dict[str, object] = {}
    exec(NETWORK, scope)
    path = tmp_path / "weights"
    torch.save(scope["build_network"]().state_dict(), path)
    return {"checkpoint": path, "module": module}


async def test_import_quantize_and_evaluate_one_after_the_other(
    tmp_path, run_step, checkpoint, seal, coloured
):
    imported = await run_step("compile/import", {"input_spec": SPEC}, checkpoint)
    assert imported.values["format"] == "torch-state-dict"
    specs = {name: imported.outputs[name].path for name in ("input-spec.json", "output-spec.json")}
    baseline = imported.outputs["model.onnx"].path
    calibration = seal(coloured(24, 1), "classification", tmp_path / "calibration", "calibration")
    quantized = await run_step("compile/quantize", {}, {"model.onnx": baseline, **specs, **calibration})
    assert quantized.values["scheme"] == "U8S8 per-channel"
    assert quantized.values["calibration_samples"] == 24
    small = quantized.outputs["model.onnx"].path
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(small).graph.node)
    evaluation = seal(coloured(30, 2), "classification", tmp_path / "evaluation", "evaluation")
    judged = await run_step(
        "compile/evaluate", {}, {"model.onnx": small, "baseline.onnx": baseline, **specs, **evaluation}
    )
    assert judged.values["accuracy"] == {"top1": 1.0}
    assert judged.values["parity"]["top1_agreement"] == 1.0
    assert json.loads(judged.outputs["evaluation.json"].path.read_text())["per_class"]["2"]["top1"] == 1.0


def test_evaluation_at_other_scales_and_with_views_merged(tmp_path, run_here, checkpoint, seal, coloured):
    imported = run_here("compile/import", {"input_spec": SPEC}, checkpoint)
    inputs = {name: output.path for name, output in imported.outputs.items()}
    evaluation = seal(coloured(6, 2), "classification", tmp_path / "evaluation", "evaluation")
    asked = {"scales": [2], "augment_flip": True, "augment_scales": [1, 2]}
    judged = run_here(
        "compile/evaluate", asked, {**inputs, "baseline.onnx": inputs["model.onnx"], **evaluation}
    )
    assert judged.values["by_scale"] == {"2": {"top1": 1.0}}
    assert len(judged.values["augmentation"]["views"]) == 4
    assert "not recorded as the variant's accuracy" in judged.warnings[0]
    assert judged.values["parity"]["mcnemar_p"] == 1.0
    low, high = judged.values["intervals"]["top1_agreement"]
    assert low < 1.0 == high
    record = json.loads(judged.outputs["evaluation.json"].path.read_text())
    assert record["confusion"] == [[0, 0, 2], [1, 1, 2], [2, 2, 2]]
    assert record["accuracy"] == judged.values["accuracy"] and "per_class" not in judged.values


async def test_a_hostile_checkpoint_fails_the_step_with_its_reason_and_runs_nothing(tmp_path, run_step):
    class RunsOnLoad:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "evil"
    torch.save({"w": RunsOnLoad()}, path)
    with pytest.raises(StepError) as caught:
        await run_step(
            "compile/import", {"input_spec": SPEC, "format": "torch-state-dict"}, {"checkpoint": path}
        )
    assert (caught.value.reason, caught.value.deterministic) == ("CHECKPOINT_REFUSED", True)
    assert "posix.system" in caught.value.message
    assert not (tmp_path / "ran").exists()


async def test_the_users_module_cannot_reach_the_network(tmp_path, run_step, checkpoint):
    checkpoint["module"].write_text(
        "import socket\nsocket.create_connection(('127.0.0.1', 9), timeout=1)\n" + NETWORK
    )
    with pytest.raises(StepError, match="PermissionError") as caught:
        await run_step("compile/import", {"input_spec": SPEC}, checkpoint)
    assert caught.value.reason == "NETWORK_MODULE_FAILED"
    assert "The network's module: " in caught.value.message and "pushed_file" not in caught.value.message


@pytest.mark.parametrize("declared", ["torch-state-dict", None])
def test_an_error_names_no_file_that_nobody_pushed(run_here, checkpoint, declared):
    alone = {"checkpoint": checkpoint["checkpoint"]}
    with pytest.raises(StepError, match=r"^The checkpoint holds weights without their network") as caught:
        run_here("compile/import", {"input_spec": SPEC, "format": declared}, alone)
    assert "pushed_file" not in caught.value.message


def test_a_spec_with_an_unknown_field_names_the_nearest_one(run_here, checkpoint):
    with pytest.raises(StepError, match="did you mean 'height'"):
        run_here("compile/import", {"input_spec": {**SPEC, "heigth": 16}}, checkpoint)


def test_labels_of_another_task_fail_the_evaluation(tmp_path, run_here, checkpoint, seal, coloured):
    imported = run_here("compile/import", {"input_spec": SPEC}, checkpoint)
    inputs = {name: output.path for name, output in imported.outputs.items()}
    samples = [
        sample.__class__(sample.name, sample.source, sample.media_type, 9) for sample in coloured(3, 1)
    ]
    evaluation = seal(samples, "classification", tmp_path / "evaluation", "evaluation")
    with pytest.raises(StepError, match="labels must be 0 to 2") as caught:
        run_here("compile/evaluate", {}, {**inputs, **evaluation})
    assert caught.value.reason == "LABELS_DO_NOT_FIT"


def test_a_pack_that_was_not_fetched_is_told(tmp_path, run_here, checkpoint, seal, coloured):
    imported = run_here("compile/import", {"input_spec": SPEC}, checkpoint)
    inputs = {name: output.path for name, output in imported.outputs.items()}
    evaluation = seal(coloured(3, 1), "classification", tmp_path / "evaluation", "evaluation")
    with pytest.raises(StepError, match="was not fetched"):
        run_here("compile/evaluate", {}, {**inputs, "evaluation": evaluation["evaluation"]})


async def test_a_graph_that_asks_for_ten_gigabytes_at_run_time_fails_clearly(tmp_path, run_step):
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [1, 10 << 28])
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ConstantOfShape", ["shape"], ["large"]),
            onnx.helper.make_node("ReduceMax", ["large"], ["most"], keepdims=0),
            onnx.helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            onnx.helper.make_node("Flatten", ["pooled"], ["flat"]),
            onnx.helper.make_node("Add", ["flat", "most"], ["logits"]),
        ],
        "net",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 16, 16])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 3])],
        [shape],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "large"
    onnx.save(model, path)
    with pytest.raises(StepError) as caught:
        await run_step("compile/import", {"input_spec": SPEC, "format": "onnx"}, {"checkpoint": path})
    assert caught.value.reason in ("MODEL_FAILED", "RUNTIME_REFUSED", "OUT_OF_MEMORY")
