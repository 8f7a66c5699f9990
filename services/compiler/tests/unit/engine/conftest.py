"""Small real networks with the traits that break quantization, built here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

DATA = Path(__file__).parents[6] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """Real models and images, where the checkout has them beside it."""
    if not (DATA / "models" / "yolov5n.onnx").exists():
        pytest.skip("needs ../shared/data with real models and images beside the checkout")
    return DATA


@pytest.fixture
def classifier() -> onnx.ModelProto:
    """Conv, Relu, pooling and Gemm over 3x16x16 images: the class is the image's strongest colour channel."""
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        kernel[channel, channel, 1, 1] = 1.0
    return _model(
        [
            helper.make_node("Conv", ["input", "kernel"], ["a"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
            helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
            helper.make_node("Gemm", ["d", "weight", "bias"], ["logits"], name="gemm"),
        ],
        {"kernel": kernel, "weight": 9 * np.eye(3, dtype=np.float32), "bias": np.zeros(3, np.float32)},
        ("input", [1, 3, 16, 16]),
        ("logits", [1, 3]),
    )


@pytest.fixture
def detector() -> onnx.ModelProto:
    """A decode as YOLO's: boxes of hundreds of pixels and scores below 1 joined by one Concat, (1, 6, 64)."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(6, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "kernels"], ["raw"], name="head", strides=[2, 2]),
        helper.make_node("Reshape", ["raw", "shape"], ["flat"], name="reshape"),
        helper.make_node("Split", ["flat", "sizes"], ["box", "score"], name="split", axis=1),
        helper.make_node("Sigmoid", ["box"], ["unit"], name="box_sigmoid"),
        helper.make_node("Mul", ["unit", "stride"], ["pixels"], name="to_pixels"),
        helper.make_node("Sigmoid", ["score"], ["chance"], name="score_sigmoid"),
        helper.make_node("Concat", ["pixels", "chance"], ["output0"], name="join", axis=1),
    ]
    constants = {
        "kernels": kernels,
        "shape": np.array([1, 6, 64], np.int64),
        "sizes": np.array([4, 2], np.int64),
        "stride": np.array(600, np.float32),
    }
    return _model(nodes, constants, ("images", [1, 3, 16, 16]), ("output0", [1, 6, 64]))


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Seeded float32 noise between 0 and 1 of a shape."""
    rng = np.random.default_rng(0)
    return lambda *shape: rng.random(shape, dtype=np.float32)


@pytest.fixture(scope="session")
def other_scales() -> Callable[[onnx.ModelProto], list[str]]:
    """The names of a quantized graph's scales that are no powers of two."""

    def found(quantized: onnx.ModelProto) -> list[str]:
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
        conversions = ("QuantizeLinear", "DequantizeLinear")
        names = {node.input[1] for node in quantized.graph.node if node.op_type in conversions}
        return sorted(name for name in names & stored.keys() if (np.frexp(stored[name])[0] != 0.5).any())

    return found


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    given: tuple[str, list[int]],
    made: tuple[str, list[int]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
        [helper.make_tensor_value_info(made[0], TensorProto.FLOAT, made[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
