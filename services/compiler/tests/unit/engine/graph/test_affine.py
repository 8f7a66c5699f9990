"""Norms and biases that exporters write out as arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.affine import fold_affine
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES

_VALUE = helper.make_tensor_value_info


def layer(operator: str, **attributes: object) -> tuple[onnx.NodeProto, dict[str, np.ndarray], list[int]]:
    """A layer from x to t with 6 channels, its constants, and the shape of x."""
    rng = np.random.default_rng(1)
    shapes = {"Conv": (6, 4, 3, 3), "ConvTranspose": (4, 6, 2, 2), "Gemm": (6, 4)}
    shape = (4, 6) if operator == "Gemm" and not attributes else shapes[operator]
    constants = {"w": rng.normal(size=shape), "b": rng.normal(size=6)}
    node = helper.make_node(operator, ["x", "w", "b"], ["t"], **attributes)
    return node, constants, [1, 4] if operator == "Gemm" else [1, 4, 8, 8]


def written_out(
    made: tuple[onnx.NodeProto, dict[str, np.ndarray], list[int]], outputs: tuple[str, ...] = ("y",)
) -> onnx.ModelProto:
    """The layer, less a mean, over a deviation, times a scale, plus a shift, as Keras writes a norm."""
    node, constants, shape = made
    rng = np.random.default_rng(2)
    channels = (1, 6) if len(shape) == 2 else (6, 1, 1)
    constants = constants | {name: rng.uniform(0.5, 2, channels) for name in ("mean", "deviation", "scale")}
    nodes = [
        node,
        helper.make_node("Sub", ["t", "mean"], ["s"]),
        helper.make_node("Div", ["s", "deviation"], ["d"]),
        helper.make_node("Mul", ["scale", "d"], ["m"]),
        helper.make_node("Add", ["m", "shift"], ["y"]),
    ]
    constants["shift"] = np.array(0.25)
    graph = helper.make_graph(
        nodes,
        "net",
        [_VALUE("x", TensorProto.FLOAT, shape)],
        [_VALUE(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "made",
    [
        layer("Conv"),
        layer("ConvTranspose"),
        layer("Gemm"),
        layer("Gemm", transB=1),
    ],
    ids=["conv", "transposed conv", "gemm", "transposed gemm"],
)
def test_arithmetic_per_channel_goes_into_the_layer(made):
    model = written_out(made)
    shape = made[2]
    feed = {"x": np.random.default_rng(3).normal(size=shape).astype(np.float32)}
    exact = open_session(model).run(None, feed)[0]
    assert fold_affine(model.graph) == 4
    assert [node.output[0] for node in model.graph.node] == ["y"]
    assert len(model.graph.initializer) == 2
    np.testing.assert_allclose(open_session(model).run(None, feed)[0], exact, rtol=1e-4, atol=1e-4)


def test_what_something_else_reads_is_kept():
    model = written_out(layer("Conv"), outputs=("d", "y"))
    assert fold_affine(model.graph) == 2
    assert [node.op_type for node in model.graph.node] == ["Conv", "Mul", "Add"]
    shared = written_out(layer("Conv"))
    shared.graph.node.append(helper.make_node("Conv", ["y", "w"], ["z"]))
    assert fold_affine(shared.graph) == 0


def test_a_weight_that_is_given_out_is_kept():
    assert fold_affine(written_out(layer("Conv"), outputs=("y", "w")).graph) == 0


def test_what_float32_cannot_hold_is_not_folded():
    model = written_out(layer("Conv"))
    deviation = next(tensor for tensor in model.graph.initializer if tensor.name == "deviation")
    deviation.CopyFrom(numpy_helper.from_array(np.full((6, 1, 1), 1e-39, np.float32), "deviation"))
    assert fold_affine(model.graph) == 1
    assert [node.op_type for node in model.graph.node] == ["Conv", "Div", "Mul", "Add"]


def test_the_new_bias_takes_no_name_that_is_taken():
    model = written_out(layer("Conv"), outputs=("y", "z"))
    model.graph.node.append(helper.make_node("Relu", ["x"], ["y_bias"]))
    model.graph.node.append(helper.make_node("Neg", ["y_bias"], ["z"]))
    assert fold_affine(model.graph) == 4
    open_session(model)


@pytest.mark.parametrize("values", [np.ones((1, 6, 8, 1)), np.ones(8), np.ones((1, 1, 6, 1, 1))])
def test_other_arithmetic_is_kept(values):
    made = layer("Conv", pads=[1, 1, 1, 1])
    model = written_out(made)
    mean = next(tensor for tensor in model.graph.initializer if tensor.name == "mean")
    mean.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "mean"))
    assert fold_affine(model.graph) == 0


def test_a_written_out_norm_costs_no_conversion():
    """Depthwise channels of very different magnitudes, which the norm brings together."""
    node, constants, shape = layer("Conv", pads=[1, 1, 1, 1], group=1)
    constants["w"] *= np.array([1000, 100, 10, 1, 0.1, 0.01])[:, None, None, None]
    model = written_out((node, constants, shape))
    deviation = next(tensor for tensor in model.graph.initializer if tensor.name == "deviation")
    wide = np.array([1000, 100, 10, 1, 0.1, 0.01], np.float32).reshape(6, 1, 1)
    deviation.CopyFrom(numpy_helper.from_array(wide, "deviation"))
    rng = np.random.default_rng(4)
    feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(8)]
    assert [node.op_type for node in prepare_graph(model).graph.node] == ["Conv"]
    done = quantize(model, feeds, PROFILES["x86-vnni"])
    exact = open_session(model).run(None, feeds[0])[0]
    near = open_session(done.model).run(None, feeds[0])[0]
    error = np.abs(near - exact).max(axis=(0, 2, 3))
    assert (error < 0.1 * np.abs(exact).max(axis=(0, 2, 3))).all()
    assert done.kernels["conversions"] <= 2
