"""A small network that takes on what exporters write and tools trip over, and its way through import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.importing import Declared, ImportedModel, import_checkpoint
from boardwright.model import InputSpec, preprocess

SIZE = 16
SPEC = {"height": SIZE, "width": SIZE, "resize": "stretch", "name": "input"}

Middle = Callable[[str], list[onnx.NodeProto]]
Feeds = list[dict[str, np.ndarray]]


@pytest.fixture
def network() -> Callable[..., onnx.ModelProto]:
    """Return ``network(element=, batch=, size=, opset=, middle=, kernel=)``: see ``_network``."""
    return _network


@pytest.fixture
def branch() -> Middle:
    """Return ``branch(read)``: the nodes of an If over the largest value."""
    return _branch


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., ImportedModel]:
    """Return ``imported(model, **spec)``: the model by way of a file, as a classification."""

    def through_a_file(model: onnx.ModelProto, **spec: object) -> ImportedModel:
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        declared = InputSpec.from_json({**SPEC, **spec})
        return import_checkpoint(path, Declared(input_spec=declared, task="classification"))

    return through_a_file


@pytest.fixture
def feeds() -> Callable[..., Feeds]:
    """Return ``feeds(found, count)``: seeded images as an imported model reads them."""
    return _feeds


@pytest.fixture
def signal_kept() -> Callable[[onnx.ModelProto, onnx.ModelProto, Feeds], float]:
    """Return ``signal_kept(exact, near, samples)``: decibels of the first output's signal over its error."""
    return _signal_kept


def _network(
    *,
    element: int = TensorProto.FLOAT,
    batch: int | str = 1,
    size: int | str = SIZE,
    opset: int = 17,
    middle: Middle | str | None = None,
    kernel: np.ndarray | None = None,
) -> onnx.ModelProto:
    """Conv, Relu, [middle: nodes, or "If" or "Loop"], pooling and Gemm; uint8 images are cast first."""
    rng = np.random.default_rng(0)
    floating = TensorProto.FLOAT if element == TensorProto.UINT8 else element
    dtype = helper.tensor_dtype_to_np_dtype(floating)
    constants = {
        "kernel": (rng.normal(size=(8, 3, 3, 3)) if kernel is None else kernel).astype(dtype),
        "weight": rng.normal(size=(8, 3)).astype(dtype),
        "bias": np.zeros(3, dtype),
    }
    start = "input"
    nodes = []
    if element == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT))
        start = "floats"
    nodes.append(helper.make_node("Conv", [start, "kernel"], ["a"], name="conv", pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Relu", ["a"], ["b"]))
    between = _MIDDLES[middle] if isinstance(middle, str) else middle
    nodes += between("b") if between else [helper.make_node("Identity", ["b"], ["x"])]
    nodes.append(helper.make_node("GlobalAveragePool", ["x"], ["c"]))
    nodes.append(helper.make_node("Flatten", ["c"], ["d"]))
    nodes.append(helper.make_node("Gemm", ["d", "weight", "bias"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", element, [batch, 3, size, size])],
        [helper.make_tensor_value_info("logits", floating, [batch, 3])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _branch(read: str) -> list[onnx.NodeProto]:
    """An If over the largest value."""
    value = helper.make_tensor_value_info
    then = helper.make_graph(
        [helper.make_node("Identity", [read], ["t"])], "then", [], [value("t", TensorProto.FLOAT, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", [read], ["o"])], "else", [], [value("o", TensorProto.FLOAT, None)]
    )
    zero = numpy_helper.from_array(np.array(0, np.float32))
    return [
        helper.make_node("ReduceMax", [read], ["largest"], keepdims=0),
        helper.make_node("Constant", [], ["zero"], value=zero),
        helper.make_node("Greater", ["largest", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["x"], name="if", then_branch=then, else_branch=other),
    ]


def _loop(read: str) -> list[onnx.NodeProto]:
    """A Loop that doubles twice."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["carried", "carried"], ["doubled"]),
        ],
        "body",
        [
            value("number", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("carried", TensorProto.FLOAT, None),
        ],
        [value("go_on", TensorProto.BOOL, []), value("doubled", TensorProto.FLOAT, None)],
    )
    twice = numpy_helper.from_array(np.array(2, np.int64))
    return [
        helper.make_node("Constant", [], ["twice"], value=twice),
        helper.make_node("Loop", ["twice", "", read], ["x"], name="loop", body=body),
    ]


_MIDDLES: Mapping[str, Middle] = {"If": _branch, "Loop": _loop}


def _feeds(found: ImportedModel, count: int = 8) -> Feeds:
    rng = np.random.default_rng(1)
    batch = found.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    images = rng.integers(0, 255, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return [
        {found.input_spec.name: np.repeat(preprocess(image, found.input_spec)[0], batch, axis=0)}
        for image in images
    ]


def _signal_kept(exact: onnx.ModelProto, near: onnx.ModelProto, samples: Feeds) -> float:
    """Return the decibels of the first output's signal over its error."""
    one, other = open_session(exact), open_session(near)
    before = np.stack([one.run(None, feed)[0] for feed in samples])
    after = np.stack([other.run(None, feed)[0] for feed in samples])
    return float(10 * np.log10((before**2).sum() / max(((before - after) ** 2).sum(), 1e-30)))
