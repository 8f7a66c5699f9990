"""The peak is one model's own, whatever the measuring process holds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boardwright.builder.steps.peak_memory import MemoryUnknown, measure_peak_memory
from boardwright.jobs.step_api import StepResult
from boardwright.model.golden import GoldenSamples
from boardwright.testing import sample_graphs

Build = Callable[..., StepResult]


def test_a_large_parent_does_not_count(run_build: Build, tmp_path: Path) -> None:
    built = run_build(sample_graphs.write_classifier(tmp_path / "g.onnx"))
    golden = GoldenSamples.from_bytes(built.outputs["golden.npz"].path.read_bytes())
    model, settings = built.outputs["model.onnx"].path, built.values["runtime_settings"]
    before = measure_peak_memory("onnxruntime", (model, None), golden, settings, tmp_path)
    ballast = np.ones(400 << 20, np.uint8)  # 400 MiB, touched
    after = measure_peak_memory("onnxruntime", (model, None), golden, settings, tmp_path)
    assert ballast.size and before["peak_rss_bytes"] >= before["runtime_rss_bytes"] > 10 << 20
    assert after["peak_rss_bytes"] < before["peak_rss_bytes"] + (40 << 20)
    assert not list(tmp_path.glob("peak-memory*"))


def test_a_larger_model_takes_more(run_build: Build, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((4096, 4096), np.float32), "w")
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4096]) for name in ("image", "logits")
    ]
    node = helper.make_node("MatMul", ["image", "w"], ["logits"])
    graph = helper.make_graph([node], "large", [value[0]], [value[1]], [weights])
    path = tmp_path / "large.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    inputs = {"image": np.zeros((1, 4096), np.float32)}
    golden = GoldenSamples(inputs, {"logits": np.zeros((1, 4096), np.float32)})
    found = measure_peak_memory("onnxruntime", (path, None), golden, {}, tmp_path)
    assert found["peak_rss_bytes"] - found["runtime_rss_bytes"] > 64 << 20


def test_a_failing_process_is_told(tmp_path: Path) -> None:
    golden = GoldenSamples({"x": np.zeros((1, 1))}, {"y": np.zeros((1, 1))})
    (tmp_path / "model").write_bytes(b"no model")
    with pytest.raises(MemoryUnknown, match="ONNX Runtime"):
        measure_peak_memory("onnxruntime", (tmp_path / "model", None), golden, {}, tmp_path)
