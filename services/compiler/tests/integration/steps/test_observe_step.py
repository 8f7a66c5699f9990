"""The step observe: its record serves quantize without the images, and other toolchains as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.jobs.step_api import StepError
from boardwright.model import InputSpec, OutputSpec


@pytest.fixture
def graph(tmp_path: Path) -> dict[str, Path]:
    """A classifier by the strongest colour channel, with its specs, as a step's inputs."""
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        kernel[channel, channel, 1, 1] = 1.0
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "weight"], ["logits"]),
    ]
    constants = {"kernel": kernel, "weight": 9 * np.eye(3, dtype=np.float32)}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "model")
    spec = InputSpec(height=16, width=16, resize="stretch")
    (tmp_path / "input").write_text(json.dumps(spec.to_json()))
    (tmp_path / "output").write_text(
        json.dumps(OutputSpec(task="classification", head="logits", num_classes=3).to_json())
    )
    names = {"model.onnx": "model", "input-spec.json": "input", "output-spec.json": "output"}
    return {name: tmp_path / file for name, file in names.items()}


def test_one_record_for_quantize_and_for_other_toolchains(tmp_path, run_here, graph, seal, coloured):
    calibration = seal(coloured(12, 1), "classification", tmp_path / "calibration", "calibration")
    asked = {"method": "percentile", "samples": 9, "exports": ["tensorrt", "onnxruntime"]}
    observed = run_here("compile/observe", asked, {**graph, **calibration})
    assert observed.values["method"] == "percentile"
    assert (observed.values["samples"], observed.values["histograms"]) == (9, "sampled")
    assert observed.values["tensors"] == 6
    assert set(observed.outputs) == {
        "calibration-record.json",
        "calibration-tensorrt.cache",
        "calibration-onnxruntime.json",
    }
    record = json.loads(observed.outputs["calibration-record.json"].path.read_bytes())
    assert record["schema"] == "boardwright.calibration-record.v2"
    given = {"calibration-record.json": observed.outputs["calibration-record.json"].path}
    quantized = run_here("compile/quantize", {}, {**graph, **calibration, **given})
    assert quantized.values["calibration_samples"] == 9


def test_a_record_that_is_none_is_refused(tmp_path, run_here, graph, seal, coloured):
    calibration = seal(coloured(3, 1), "classification", tmp_path / "calibration", "calibration")
    (tmp_path / "broken").write_text('{"schema": "other"}')
    inputs = {**graph, **calibration, "calibration-record.json": tmp_path / "broken"}
    with pytest.raises(StepError) as caught:
        run_here("compile/quantize", {}, inputs)
    assert caught.value.reason == "RECORD_UNKNOWN"
