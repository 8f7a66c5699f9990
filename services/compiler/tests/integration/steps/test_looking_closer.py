"""Profile, diagnose, ablate and the other quantizations as steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.jobs.step_api import StepError

SPEC = {"height": 16, "width": 16, "resize": "stretch", "name": "input"}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A classifier of the strongest channel, wide enough to be quantized and packed."""
    rng = np.random.default_rng(0)
    spread = rng.normal(0, 0.2, (16, 3, 3, 3)).astype(np.float32)
    spread[:3, :, 1, 1] += 2 * np.eye(3, dtype=np.float32)
    hidden = rng.normal(0, 0.05, (16, 32)).astype(np.float32)
    hidden[:3, :3] += np.eye(3, dtype=np.float32)
    head = np.zeros((32, 3), np.float32)
    head[:3] = 9 * np.eye(3, dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "spread"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "hidden"], ["e"], name="hidden"),
        helper.make_node("MatMul", ["e", "head"], ["logits"], name="head"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [value("input", TensorProto.FLOAT, [1, 3, 16, 16])],
        [value("logits", TensorProto.FLOAT, [1, 3])],
        [
            numpy_helper.from_array(array, name)
            for name, array in {"spread": spread, "hidden": hidden, "head": head}.items()
        ],
    )
    path = tmp_path / "network.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def document(result, name: str) -> dict[str, object]:
    return json.loads(result.outputs[name].path.read_bytes())


def test_a_variant_is_packed_profiled_diagnosed_and_compared(tmp_path, run_here, network, seal, coloured):
    parameters = {"input_spec": SPEC, "task": "classification"}
    imported = run_here("compile/import", parameters, {"checkpoint": network})
    specs = {name: imported.outputs[name].path for name in ("input-spec.json", "output-spec.json")}
    baseline = imported.outputs["model.onnx"].path
    given = {"model.onnx": baseline, **specs}
    calibration = seal(coloured(16, 1), "classification", tmp_path / "calibration", "calibration")
    evaluation = seal(coloured(16, 2), "classification", tmp_path / "evaluation", "evaluation")

    packed = run_here("compile/quantize-weights", {"algorithm": "awq", "bits": 8}, {**given, **calibration})
    assert packed.values["information_checked"] and packed.values["layers"] == 2
    dynamic = run_here("compile/quantize-dynamic", {"convolutions": True}, given)
    assert dynamic.values["layers"] == {"Conv": 1, "MatMul": 2}
    assert not dynamic.values["information_checked"]

    half = run_here("compile/convert-float16", {"profile": "tensorrt"}, {**given, **calibration})
    assert half.values["faster_kernels"] and half.values["information_checked"]
    assert half.values["size_bytes"] < 0.7 * baseline.stat().st_size and half.warnings == ()
    judged = run_here(
        "compile/evaluate",
        {},
        {"model.onnx": half.outputs["model.onnx"].path, "baseline.onnx": baseline, **specs, **evaluation},
    )
    assert judged.values["parity"]["top1_agreement"] == 1.0
    here = run_here("compile/convert-float16", {"profile": "x86"}, given)
    assert not here.values["faster_kernels"] and not here.values["information_checked"]
    assert "half as large, and that is all" in " ".join(here.warnings)

    profiled = run_here("compile/profile", {"runs": 3}, {**given, **calibration})
    assert document(profiled, "profile.json")["macs"] == profiled.values["macs"] > 0
    assert any(event["cat"] == "Node" for event in document(profiled, "trace.json") if "cat" in event)

    variant = dynamic.outputs["model.onnx"].path
    diagnosed = run_here(
        "compile/diagnose",
        {"runs": 5},
        {"model.onnx": variant, "baseline.onnx": baseline, **specs, **calibration},
    )
    assert "DynamicQuantizeLinear" in str(diagnosed.values["findings"])
    assert document(diagnosed, "diagnosis.json")["verdict"] == diagnosed.values["verdict"]

    reports = {}
    for name, graph in (("baseline", baseline), ("dynamic", variant)):
        judged = run_here("compile/evaluate", {}, {"model.onnx": graph, **specs, **evaluation})
        reports |= {
            f"{name}.model.onnx": graph,
            f"{name}.evaluation.json": judged.outputs["evaluation.json"].path,
        }
    compared = run_here(
        "compile/ablate", {"experiments": {"dynamic": ["dynamic"]}, "runs": 5}, {**given, **reports}
    )
    assert [row["name"] for row in compared.values["rows"]] == ["baseline", "dynamic"]
    assert onnx.load(variant).graph.node


def test_the_baseline_has_nothing_to_be_diagnosed_against(tmp_path, run_here, network, seal, coloured):
    parameters = {"input_spec": SPEC, "task": "classification"}
    imported = run_here("compile/import", parameters, {"checkpoint": network})
    given = {name: imported.outputs[name].path for name in imported.outputs}
    calibration = seal(coloured(4, 1), "classification", tmp_path / "calibration", "calibration")
    with pytest.raises(StepError, match="put it behind a pass that makes one") as caught:
        run_here("compile/diagnose", {}, {**given, **calibration})
    assert caught.value.reason == "NOTHING_TO_COMPARE"
