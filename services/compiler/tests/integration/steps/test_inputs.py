"""What the steps share of reading their inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.protect.protection import SCHEMA
from boardwright.compiler.engine.training.data import DatasetSource, ImageBatches
from boardwright.compiler.engine.training.options import DataOptions
from boardwright.compiler.kinds import KINDS
from boardwright.compiler.steps import quantize_weights
from boardwright.compiler.steps.files import Feeds, open_dataset, read_exclusions
from boardwright.content import digest_file
from boardwright.jobs.domain.cache_key import with_defaults
from boardwright.jobs.step_api import InputFile, StepRequest
from boardwright.model import InputSpec, OutputSpec

SPEC = InputSpec(height=16, width=16, batch=2)
PROTECTED = {"rule": "tail", "nodes": ["gemm"], "reason": "It is the answer."}

Ask = Callable[[str, Mapping[str, Any], Mapping[str, Path]], StepRequest]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return ``ask("compile/train-quantized", parameters, inputs)``: a request for a step in this process."""

    def request(kind: str, parameters: Mapping[str, Any], inputs: Mapping[str, Path]) -> StepRequest:
        given = {name: InputFile(path, str(digest_file(path)), "") for name, path in inputs.items()}
        return StepRequest(kind, with_defaults(KINDS[kind], parameters), given, 0, tmp_path)

    return request


@pytest.fixture
def pairs(tmp_path: Path) -> dict[str, Path]:
    """A linear classifier of two images at once, with its specs."""
    weight = np.random.default_rng(0).normal(size=(3 * 16 * 16, 3)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"], name="layer"),
        ],
        "pairs",
        [value("input", TensorProto.FLOAT, SPEC.shape)],
        [value("logits", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    answers = OutputSpec(task="classification", head="logits", num_classes=3)
    files = {
        "model.onnx": model.SerializeToString(),
        "input-spec.json": json.dumps(SPEC.to_json()).encode(),
        "output-spec.json": json.dumps(answers.to_json()).encode(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in files}


def test_a_graph_of_two_images_at_once_learns_from_samples(ask, pairs, seal, coloured, tmp_path):
    dataset = seal(coloured(6, 1), "classification", tmp_path / "calibration", "calibration")
    asked = {"algorithm": "awq", "samples": 4}
    done = quantize_weights.run(
        ask("compile/quantize-weights", asked, {**pairs, **dataset}), lambda *told: None
    )
    assert done.values["layers"] == 1 and done.values["output_sqnr_db"] > 10


def test_samples_are_read_anew_at_each_pass(ask, pairs, seal, coloured, tmp_path):
    import onnx

    dataset = seal(coloured(6, 1), "classification", tmp_path / "calibration", "calibration")
    request = ask("compile/observe", {}, {**pairs, **dataset})
    model = onnx.load(pairs["model.onnx"])
    some = Feeds(open_dataset(request, "calibration"), model, SPEC, 4)
    first, second = list(some), list(some)
    assert len(some) == len(first) == 4 and first[0]["input"].shape == (2, 3, 16, 16)
    assert all((a["input"] == b["input"]).all() for a, b in zip(first, second, strict=True))
    assert len(Feeds(open_dataset(request, "calibration"), model, SPEC, None)) == 6


def test_an_image_of_another_size_is_named(ask, pairs, seal, coloured, tmp_path):
    import onnx

    dataset = seal(coloured(2, 1), "classification", tmp_path / "calibration", "calibration")
    reader = open_dataset(ask("compile/observe", {}, {**pairs, **dataset}), "calibration")
    strict = replace(SPEC, resize="none", height=15)
    told = r"^Sample '[\w.]+': the image is .* Correct the dataset or the input spec\.$"
    with pytest.raises(DatasetUnfit, match=told):
        list(Feeds(reader, onnx.load(pairs["model.onnx"]), strict, 2))
    with pytest.raises(DatasetUnfit, match=told):
        list(ImageBatches(DatasetSource(reader), strict, DataOptions()).epoch(0))


def test_what_protect_found_counts_unless_nothing_is_to_be_protected(ask, tmp_path):
    file = tmp_path / "protection.json"
    file.write_text(json.dumps({"schema": SCHEMA, "exclusions": [PROTECTED]}))
    given = {"protection.json": file}
    found = read_exclusions(ask("compile/train-quantized", {}, given))
    assert found is not None and [entry.nodes for entry in found] == [("gemm",)]
    assert read_exclusions(ask("compile/train-quantized", {}, {})) is None
    assert read_exclusions(ask("compile/train-quantized", {"protect": False}, given)) == ()
