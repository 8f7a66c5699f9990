from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from boardwright.client.pushing import read_checkpoint
from boardwright.model import InputSpec, OutputSpec
from boardwright.rpc.errors import InvalidArgument

SPEC = InputSpec(height=32, width=32)


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08not parsed here")
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    return path


def test_a_spec_may_be_an_object_a_document_or_a_file(tmp_path: Path, onnx: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text(json.dumps(SPEC.to_json()))
    texts = {read_checkpoint(onnx, input_spec=spec).input_spec_json for spec in (SPEC, SPEC.to_json(), file)}
    assert len(texts) == 1
    assert InputSpec.from_json(texts.pop()) == SPEC


def test_class_names_complete_the_output_spec(onnx: Path) -> None:
    spec = {"schema": "output-spec/1", "task": "classification", "head": "logits"}
    read = read_checkpoint(onnx, output_spec=spec, labels=("cat", "dog"))
    assert OutputSpec.from_json(read.output_spec_json).labels == ("cat", "dog")
    assert read.task == "classification"


def test_weights_alone_need_the_module_that_builds_their_network(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"--module net\.py") as caught:
        read_checkpoint(weights)
    assert caught.value.reason == "MODULE_NEEDED"
    module = tmp_path / "net.py"
    module.write_text("raise SystemExit('imported by the client')")
    read = read_checkpoint(weights, module=f"{module}:make")
    assert (read.format, read.builder) == ("safetensors", "make")
    assert [file.name for file in read.files] == ["m.safetensors", "net.py"]
    assert read_checkpoint(weights, module=module).builder == ""


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"path": "missing.onnx"}, "CHECKPOINT_NOT_FOUND", "missing.onnx"),
        ({"format": "keras"}, "MODEL_FORMAT_UNKNOWN", "safetensors"),
        ({"input_spec": "missing.json"}, "SPEC_INVALID", "missing.json"),
        ({"input_spec": {"schema": "input-spec/1", "height": 8}}, "INPUT_SPEC_INVALID", "width"),
        ({"module": "missing.py"}, "MODULE_NOT_FOUND", "missing.py"),
    ],
)
def test_mistakes_are_named(onnx: Path, change: dict[str, object], reason: str, says: str) -> None:
    path = Path(str(change.pop("path", onnx)))
    with pytest.raises(InvalidArgument, match=says) as caught:
        read_checkpoint(path, **change)  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_an_onnx_file_whose_weights_lie_beside_it_is_refused_before_it_travels_without_them(
    tmp_path: Path,
) -> None:
    onnx = pytest.importorskip("onnx")
    weights = onnx.numpy_helper.from_array(np.ones((40, 40), np.float32), "weights")
    graph = onnx.helper.make_graph([], "graph", [], [], [weights])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"location": "is no weight's"})
    onnx.save(model, tmp_path / "one.onnx")
    assert read_checkpoint(tmp_path / "one.onnx").format == "onnx"
    # As torch.onnx.export writes it by default.
    onnx.save(model, tmp_path / "two.onnx", save_as_external_data=True, location="two.onnx.data")
    with pytest.raises(InvalidArgument, match="external_data=False") as caught:
        read_checkpoint(tmp_path / "two.onnx")
    assert caught.value.reason == "CHECKPOINT_EXTERNAL_DATA"
