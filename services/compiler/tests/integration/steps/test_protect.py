"""The step protect: sentences, sensitivity, and a budget that was verified."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.steps.protect import _judges
from boardwright.jobs.step_api import StepError
from boardwright.model import InputSpec, OutputSpec


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A classifier of the strongest colour and its specs, as import leaves them."""
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[np.arange(3), np.arange(3), 1, 1] = 1
    constants = {"kernel": kernel, "weight": 9 * np.eye(3, dtype=np.float32), "bias": np.zeros(3, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "kernel"], ["a"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
            helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
            helper.make_node("Gemm", ["d", "weight", "bias"], ["e"], name="gemm"),
            helper.make_node("Softmax", ["e"], ["chances"], name="softmax"),
        ],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("chances", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model")
    spec = InputSpec(height=16, width=16, resize="stretch")
    (tmp_path / "input-spec").write_text(json.dumps(spec.to_json()))
    head = OutputSpec(task="classification", head="probabilities", num_classes=3)
    (tmp_path / "output-spec").write_text(json.dumps(head.to_json()))
    return {
        "model.onnx": tmp_path / "model",
        "input-spec.json": tmp_path / "input-spec",
        "output-spec.json": tmp_path / "output-spec",
    }


def test_labelled_calibration_samples_choose_and_evaluation_samples_judge(
    tmp_path, run_here, inputs, seal, coloured
):
    calibration = seal(coloured(12, 1), "classification", tmp_path / "calibration", "calibration")
    evaluation = seal(coloured(12, 2), "classification", tmp_path / "evaluation", "evaluation")
    parameters = {"budget": {"max_drop": 1.0}, "sensitivity_samples": 2}
    done = run_here("compile/protect", parameters, {**inputs, **calibration, **evaluation})
    found = json.loads(done.outputs["protection.json"].path.read_text())
    assert {entry["node"] for entry in found["sensitivity"]} >= {"conv", "gemm"}
    assert all({"sqnr_db", "rank", "measured", "macs"} <= entry.keys() for entry in found["sensitivity"])
    assert [entry["rule"] for entry in found["exclusions"]] == ["tail"]
    assert "softmax" in found["exclusions"][0]["nodes"]
    assert found["budget"]["reached"] and found["budget"]["metric"] == "top-1"
    assert done.values["budget"]["trials"][0]["drop"] == 0
    assert found["budget"]["verified"] == {"metric": "top-1", "drop": 0.0}
    again = run_here("compile/protect", parameters, {**inputs, **calibration, **evaluation})
    assert (
        again.outputs["protection.json"].path.read_bytes()
        == done.outputs["protection.json"].path.read_bytes()
    )


def test_whoever_chooses_does_not_judge() -> None:
    class Dataset:
        def __init__(self, count: int, labelled: bool) -> None:
            label = 0 if labelled else None
            self.manifest = SimpleNamespace(samples=[SimpleNamespace(label=label)] * count)

        def __len__(self) -> int:
            return len(self.manifest.samples)

    labelled, plain, evaluation = Dataset(9, True), Dataset(9, False), Dataset(8, True)
    assert _judges(labelled, evaluation, 3) == ((labelled, [0, 3, 6]), (evaluation, [0, 2, 5]))
    for calibration, judged, total in ((plain, evaluation, 8), (plain, None, 9), (labelled, None, 9)):
        (source, chosen), (same, others) = _judges(calibration, judged, 64)
        assert source is same is (judged or calibration)
        assert sorted(chosen + others) == list(range(total)) and not set(chosen) & set(others)


def test_a_latency_needs_times_and_takes_them_from_a_profile(tmp_path, run_here, inputs, seal, coloured):
    calibration = seal(coloured(6, 1), "classification", tmp_path / "calibration", "calibration")
    parameters = {"budget": {"max_latency_ms": 3.0}, "rules": ["tail"]}
    blind = run_here("compile/protect", parameters, {**inputs, **calibration})
    assert not blind.values["budget"]["reached"]
    assert any("give per-layer times" in warning for warning in blind.warnings)
    profile = tmp_path / "profile"
    profile.write_text(json.dumps({"layers": [{"name": "conv", "ms": 2.0}, {"name": "gemm", "ms": 2.0}]}))
    timed = run_here("compile/protect", parameters, {**inputs, **calibration, "profile.json": profile})
    budget = timed.values["budget"]
    assert budget["reached"]
    assert budget["latency_unit"] == "ms"
    assert len({"conv", "gemm"} & set(budget["kept_in_float"])) == 1  # 2 ms and 1 ms make 3


def test_what_the_recipe_names_wrongly_is_told(tmp_path, run_here, inputs, seal, coloured):
    calibration = seal(coloured(3, 1), "classification", tmp_path / "calibration", "calibration")
    with pytest.raises(StepError, match="Did you mean 'gemm'") as caught:
        run_here("compile/protect", {"exclude": ["gem"]}, {**inputs, **calibration})
    assert caught.value.reason == "NODE_UNKNOWN"
