"""A small convolutional network with unlike channels, and images that it reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def _network(activation: str) -> onnx.ModelProto:
    """Conv, activation, depthwise Conv, Relu, 1x1 Conv, pooling and Gemm over 3x12x12 images, 4 logits."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.05, 4, 8, dtype=np.float32)
    constants = {
        "w1": rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * spread[:, None, None, None],
        "b1": rng.normal(size=8).astype(np.float32) * spread,
        "w2": rng.normal(size=(8, 1, 3, 3)).astype(np.float32),
        "b2": rng.normal(size=8).astype(np.float32),
        "w3": (rng.normal(size=(12, 8, 1, 1)) / spread[None, :, None, None]).astype(np.float32),
        "b3": rng.normal(size=12).astype(np.float32),
        "w4": rng.normal(size=(12, 4)).astype(np.float32),
        "b4": rng.normal(size=4).astype(np.float32),
        "six": np.array(6, np.float32),
        "zero": np.array(0, np.float32),
    }
    between = {
        "Relu": [helper.make_node("Relu", ["c1"], ["a1"], name="act")],
        "Clip": [helper.make_node("Clip", ["c1", "zero", "six"], ["a1"], name="act")],
        "SiLU": [
            helper.make_node("Sigmoid", ["c1"], ["s1"], name="gate"),
            helper.make_node("Mul", ["c1", "s1"], ["a1"], name="act"),
        ],
    }[activation]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        *between,
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], name="conv2", group=8, strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["a2"], name="relu2"),
        helper.make_node("Conv", ["a2", "w3", "b3"], ["c3"], name="conv3"),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["logits"], name="gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def network() -> Callable[[str], onnx.ModelProto]:
    """Return ``network(activation)``; the activation is Relu, Clip or SiLU."""
    return _network


@pytest.fixture
def images() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(1, 3, 12, 12)).astype(np.float32)} for _ in range(24)]
