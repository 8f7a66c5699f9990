"""Networks with what fusion and layouts do to tensors, and the truth about their activations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import float_activations

Truth = dict[str, np.ndarray]


def make(nodes, constants, given, made, opset=17):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in made.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def build() -> Callable[..., onnx.ModelProto]:
    """Return ``build(nodes, constants, {input: shape}, {output: shape}, opset)``."""
    return make


@pytest.fixture
def network() -> Callable[[int], onnx.ModelProto]:
    """Return ``network(opset)``: every kind of activation, a residual, joins, 5 and 12 channels, moves."""
    rng = np.random.default_rng(0)

    def kernel(out: int, given: int, size: int = 3) -> np.ndarray:
        return (rng.normal(size=(out, given, size, size)) / np.sqrt(given * size * size)).astype(np.float32)

    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "k1", "b1"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["relu"]),
        helper.make_node("Conv", ["relu", "k2"], ["c2"], **pads),
        helper.make_node("Sigmoid", ["c2"], ["gate"]),
        helper.make_node("Mul", ["c2", "gate"], ["silu"]),
        helper.make_node("Conv", ["silu", "k3"], ["c3"], **pads),
        helper.make_node("Add", ["c3", "silu"], ["sum"]),
        helper.make_node("Clip", ["sum", "zero", "six"], ["clip"]),
        helper.make_node("Conv", ["clip", "k4"], ["c4"], **pads),
        helper.make_node("LeakyRelu", ["c4"], ["leaky"], alpha=0.1),
        helper.make_node("Conv", ["clip", "k5"], ["c5"], **pads),
        helper.make_node("Tanh", ["c5"], ["tanh"]),
        helper.make_node("Concat", ["leaky", "tanh"], ["join"], axis=1),
        helper.make_node("MaxPool", ["join"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pool", "k6"], ["c6"], **pads),
        helper.make_node("Relu", ["c6"], ["r6"]),
        helper.make_node("Transpose", ["r6"], ["moved"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["moved", "rows"], ["flat"]),
        helper.make_node("Mul", ["flat", "half"], ["scaled"]),
        helper.make_node("GlobalAveragePool", ["pool"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["vector"]),
        helper.make_node("Gemm", ["vector", "w", "b"], ["logits"]),
    ]
    constants = {
        "k1": kernel(16, 3),
        "b1": rng.normal(size=16).astype(np.float32),
        "k2": kernel(12, 16),
        "k3": kernel(12, 12),
        "k4": kernel(16, 12),
        "k5": kernel(5, 12),
        "k6": kernel(32, 21),
        "w": rng.normal(size=(21, 10)).astype(np.float32),
        "b": np.zeros(10, np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "half": np.array(0.5, np.float32),
        "rows": np.array([1, -1, 32], np.int64),
    }
    made = {"scaled": [1, 100, 32], "logits": [1, 10]}
    return lambda opset: prepare_graph(make(nodes, constants, {"x": [1, 3, 20, 20]}, made, opset))


@pytest.fixture
def truth() -> Callable[..., Truth]:
    """Return ``truth(model, feed)``: the values of every float activation, by keeping them all."""

    def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> Truth:
        kept = onnx.shape_inference.infer_shapes(model)
        names = [name for name in float_activations(kept) if name not in feed]
        del kept.graph.output[:]
        kept.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
        )
        values = open_session(kept, threads=1, level="none").run(names, feed)
        return {**feed, **dict(zip(names, values, strict=True))}

    return run
