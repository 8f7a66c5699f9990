"""Attention whose shares are nearly even keeps them on integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.integer_softmax import with_room_for_shares
from boardwright.compiler.engine.observe import TensorRange
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES


def attention(positions: int, moves: bool = False) -> onnx.ModelProto:
    """One head over tokens (1, N, 8) whose scores are small, as PyTorch exports it."""
    rng = np.random.default_rng(0)
    sizes = {"q": 0.1, "k": 0.1, "v": 0.5, "o": 0.5}
    weights = {name: rng.normal(0, size, (8, 8)).astype(np.float32) for name, size in sizes.items()}
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}x"], name=name) for name in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["kx"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["qx", "kt"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1, name="softmax"),
        helper.make_node("Identity", ["shares"], ["moved"]),
        helper.make_node("MatMul", ["moved" if moves else "shares", "vx"], ["mixed"], name="mix"),
        helper.make_node("MatMul", ["mixed", "o"], ["y"], name="o"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [value("x", TensorProto.FLOAT, [1, positions, 8])],
        [value("y", TensorProto.FLOAT, [1, positions, 8])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("positions", [4, 49])
@pytest.mark.parametrize("profile", ["x86-vnni", "arm"])
def test_nearly_even_shares_do_not_overflow(positions, profile):
    model = attention(positions)
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(0, 0.3, (1, positions, 8)).astype(np.float32)} for _ in range(8)]
    done = quantize(model, feeds, PROFILES[profile])
    assert done.record.ranges["shares"].high * positions < 1.5  # what the kernel has no room for
    before, after = open_session(model), open_session(done.model)
    exact = np.stack([before.run(None, feed)[0] for feed in feeds])
    near = np.stack([after.run(None, feed)[0] for feed in feeds])
    assert 10 * np.log10((exact**2).sum() / ((exact - near) ** 2).sum()) > 22


def test_room_is_made_behind_what_moves_shares_and_only_where_there_is_none():
    model = onnx.shape_inference.infer_shapes(attention(16, moves=True))
    ranges = {"shares": TensorRange(0.05, 0.07), "moved": TensorRange(0.05, 0.07), "y": TensorRange(-1, 1)}
    found = with_room_for_shares(model, ranges)
    assert found["shares"] == found["moved"] == TensorRange(0.05, 2 / 16)
    assert found["y"] == ranges["y"]
    wide = {"shares": TensorRange(0.0, 0.4)}
    assert with_room_for_shares(model, wide) == wide
    del model.graph.value_info[:]
    assert with_room_for_shares(model, wide) == {"shares": TensorRange(0.0, 1.0)}
