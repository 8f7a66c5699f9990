"""Every operator computes what ONNX Runtime computes, in the forms that opsets 13 to 21 give it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.training.network import GraphNetwork
from boardwright.compiler.engine.training.operators import supported_operators

_I, _F = np.int64, np.float32


def ints(*values: int) -> np.ndarray:
    return np.array(values, _I)


def floats(*values: float) -> np.ndarray:
    return np.array(values, _F)


SIGNED, POSITIVE, UNIT = "signed", "positive", "unit"
_X = (2, 4, 6, 6)
_CASES: list[tuple[str, dict[str, Any], list[Any], tuple[int, ...], str, int]] = [
    *((name, {}, [], _X, SIGNED, 17) for name in (
        "Abs", "Atan", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Relu", "Round", "Sigmoid", "Sign", "Sin",
        "Softplus", "Softsign", "Tanh", "HardSwish", "Identity", "LeakyRelu", "Elu", "Celu", "Selu",
        "ThresholdedRelu", "HardSigmoid", "GlobalAveragePool", "GlobalMaxPool", "Softmax", "LogSoftmax",
        "Flatten", "Transpose", "ReduceL1", "ReduceLogSumExp",
    )),
    *((name, {}, [], _X, UNIT, 17) for name in ("Acos", "Asin", "Tan")),
    *((name, {}, [], _X, POSITIVE, 17) for name in ("Log", "Reciprocal", "Sqrt")),
    *((name, {}, [floats(0.5, 1.0, 2.0, 3.0).reshape(4, 1, 1)], _X, SIGNED, 17)
      for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu")),
    ("Pow", {}, [floats(1.5)], _X, POSITIVE, 17),
    ("Mod", {"fmod": 1}, [floats(1.5)], _X, SIGNED, 17),
    ("MatMul", {}, [np.ones((1, 1, 6, 3), _F)], _X, SIGNED, 17),
    ("Gemm", {"alpha": 0.5, "transB": 1}, [np.ones((5, 6), _F), floats(1, 2, 3, 4, 5)], (3, 6), SIGNED, 17),
    ("Einsum", {"equation": "bchw,cd->bdhw"}, [np.ones((4, 3), _F)], _X, SIGNED, 17),
    ("Gelu", {"approximate": "tanh"}, [], _X, SIGNED, 20),
    ("Mish", {}, [], _X, SIGNED, 18),
    ("Clip", {}, [floats(-0.5).reshape(()), floats(0.5).reshape(())], _X, SIGNED, 17),
    ("Dropout", {}, [], _X, SIGNED, 17),
    ("Cast", {"to": TensorProto.INT32}, [], _X, SIGNED, 17),
    ("Reshape", {}, [ints(0, -1, 6)], _X, SIGNED, 17),
    ("Flatten", {"axis": 2}, [], _X, SIGNED, 17),
    ("Transpose", {"perm": [0, 2, 3, 1]}, [], _X, SIGNED, 17),
    ("Squeeze", {}, [ints(1)], (2, 1, 3), SIGNED, 17),
    ("Unsqueeze", {}, [ints(0, -1)], _X, SIGNED, 17),
    ("Concat", {"axis": 1}, [np.ones((2, 1, 6, 6), _F)], _X, SIGNED, 17),
    ("Slice", {}, [ints(4, -5), ints(-9, 5), ints(2, 3), ints(-2, 1)], _X, SIGNED, 17),
    ("Gather", {"axis": 1}, [ints(-1, 0)], _X, SIGNED, 17),
    ("Gather", {"axis": 2}, [np.array(3, _I)], _X, SIGNED, 17),
    ("GatherElements", {"axis": 3}, [np.full((2, 4, 6, 1), -2, _I)], _X, SIGNED, 17),
    ("GatherND", {}, [np.array([[0, 1], [1, 3]], _I)], _X, SIGNED, 17),
    ("GatherND", {"batch_dims": 1}, [np.array([[[0]], [[3]]], _I)], _X, SIGNED, 17),
    ("ScatterND", {}, [np.array([[0], [1]], _I), np.ones((2, 4, 6, 6), _F)], _X, SIGNED, 17),
    ("Expand", {}, [ints(2, 3, 1, 6)], (2, 1, 6, 1), SIGNED, 17),
    ("Tile", {}, [ints(1, 2, 1, 3)], _X, SIGNED, 17),
    ("Trilu", {"upper": 0}, [], _X, SIGNED, 17),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [], _X, SIGNED, 17),
    ("DepthToSpace", {"blocksize": 2}, [], _X, SIGNED, 17),
    ("SpaceToDepth", {"blocksize": 2}, [], _X, SIGNED, 17),
    ("Where", {}, [], _X, SIGNED, 17),
    ("ReduceMean", {"axes": [2, 3], "keepdims": 0}, [], _X, SIGNED, 13),
    ("ReduceMean", {}, [ints(1)], _X, SIGNED, 18),
    ("ReduceSum", {"keepdims": 0}, [ints(-1)], _X, SIGNED, 17),
    ("ReduceMax", {"axes": [1]}, [], _X, SIGNED, 17),
    ("ReduceMin", {}, [ints(1, 2)], _X, SIGNED, 18),
    ("ReduceL2", {"axes": [1]}, [], _X, SIGNED, 17),
    ("ReduceProd", {"axes": [1, 3], "keepdims": 0}, [], _X, SIGNED, 17),
    ("ReduceSumSquare", {"axes": [3]}, [], _X, SIGNED, 17),
    ("Softmax", {"axis": 1}, [], _X, SIGNED, 17),
    ("ArgMax", {"axis": 1, "keepdims": 0}, [], _X, SIGNED, 17),
    ("ArgMin", {"axis": -1}, [], _X, SIGNED, 17),
    ("TopK", {"axis": 3}, [ints(2)], _X, SIGNED, 17),
    ("CumSum", {"reverse": 1, "exclusive": 1}, [np.array(2, _I)], _X, SIGNED, 17),
    ("LayerNormalization", {"axis": -2}, [np.full((6, 6), 2, _F), np.ones((6, 6), _F)], _X, SIGNED, 17),
    ("InstanceNormalization", {}, [floats(1, 2, 3, 4), floats(0, 1, 0, 1)], _X, SIGNED, 17),
    ("GroupNormalization", {"num_groups": 2}, [floats(1, 2, 3, 4), floats(0, 1, 0, 1)], _X, SIGNED, 21),
    ("LRN", {"size": 3}, [], _X, POSITIVE, 17),
    ("LpNormalization", {"axis": 1}, [], _X, SIGNED, 17),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, [], _X, SIGNED, 17),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, [], _X, SIGNED, 17),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, [], (1, 2, 5, 5), SIGNED, 17),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, [], _X, SIGNED, 17),
    ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "strides": [2, 2]}, [], _X, SIGNED, 17),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}, [], _X, SIGNED, 17),
    ("Pad", {}, [ints(0, 1, 2, 0, 0, 0, 1, 3), floats(7).reshape(())], _X, SIGNED, 17),
    ("Pad", {"mode": "reflect"}, [ints(0, 0, 2, 1, 0, 0, 1, 2)], _X, SIGNED, 17),
    ("Pad", {"mode": "edge"}, [ints(1, 2, 1, 0), None, ints(2, 3)], _X, SIGNED, 18),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [np.ones((2, 4, 3, 3), _F)], _X, SIGNED, 17),
    ("Conv", {"pads": [0, 1, 2, 1]}, [np.ones((2, 4, 3, 3), _F), floats(1, 2)], _X, SIGNED, 17),
    ("ConvTranspose", {"strides": [2, 2], "output_padding": [1, 1], "group": 2}, [np.ones((4, 3, 3, 3), _F)],
     _X, SIGNED, 17),
]  # fmt: skip


@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{case[0]}-{case[5]}")
def test_an_operator_computes_what_the_runtime_does(case):
    name, attributes, constants, shape, kind, opset = case
    check(name, attributes, constants, shape, kind, opset)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("sizes", [(12, 12), (9, 4), (6, 3)])
def test_resizing_follows_coordinates_and_rounding(mode, coordinates, sizes):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    rounding = ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor") if mode == "nearest" else ("",)
    for nearest in rounding:
        given = {**attributes, "nearest_mode": nearest} if nearest else attributes
        check("Resize", given, [None, None, ints(2, 3, *sizes)], (2, 3, 6, 6), SIGNED, 17)


def test_cubic_resizing():
    attributes = {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}
    check("Resize", attributes, [None, floats(1, 1, 2, 1.5)], (1, 2, 6, 6), SIGNED, 17)


@pytest.mark.parametrize(("opset", "sizes"), [(13, ints(1, 3)), (13, None), (18, None)])
def test_splits_of_every_form(opset, sizes):
    attributes = {"axis": 1} if opset < 18 else {"axis": 1, "num_outputs": 2}
    constants = [] if sizes is None else [sizes]
    check("Split", attributes, constants, _X, SIGNED, opset, outputs=2)


@pytest.mark.parametrize("name", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons_choose_values(name):
    nodes = [
        helper.make_node("Round", ["input"], ["whole"]),
        helper.make_node(name, ["whole", "limit"], ["chosen"]),
        helper.make_node("Where", ["chosen", "input", "half"], ["out"]),
    ]
    compare(nodes, {"limit": floats(1), "half": floats(0.5)}, _X, SIGNED, 17)


@pytest.mark.parametrize("name", ["And", "Or", "Xor", "Not", "IsNaN"])
def test_conditions_choose_values(name):
    inputs = {"Not": ["above"], "IsNaN": ["root"]}.get(name, ["above", "below"])
    nodes = [
        helper.make_node("Greater", ["input", "limit"], ["above"]),
        helper.make_node("Less", ["input", "half"], ["below"]),
        helper.make_node("Sqrt", ["input"], ["root"]),
        helper.make_node(name, inputs, ["chosen"]),
        helper.make_node("Where", ["chosen", "input", "half"], ["out"]),
    ]
    compare(nodes, {"limit": floats(0), "half": floats(0.5)}, _X, SIGNED, 17)


def test_shapes_are_computed_as_the_graph_says():
    nodes = [
        helper.make_node("Shape", ["input"], ["shape"], start=1),
        helper.make_node("ConstantOfShape", ["shape"], ["filled"], value=numpy_helper.from_array(floats(3))),
        helper.make_node("Size", ["input"], ["size"]),
        helper.make_node("Cast", ["size"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Range", ["zero", "four", "one"], ["steps"]),
        helper.make_node("Reshape", ["steps", "tall"], ["column"]),
        helper.make_node("CastLike", ["column", "input"], ["rows"]),
        helper.make_node("Add", ["filled", "rows"], ["a"]),
        helper.make_node("Mul", ["a", "count"], ["b"]),
        helper.make_node("Add", ["b", "input"], ["out"]),
    ]
    constants = {
        "zero": np.array(0, _I),
        "four": np.array(4, _I),
        "one": np.array(1, _I),
        "tall": ints(4, 1, 1),
    }
    compare(nodes, constants, _X, SIGNED, 17)


def test_the_table_is_tested():
    tested = {case[0] for case in _CASES} | {
        "Resize", "Split", "And", "Or", "Xor", "Not", "IsNaN", "Equal", "Greater", "GreaterOrEqual", "Less",
        "LessOrEqual", "Shape", "Size", "ConstantOfShape", "Range", "CastLike",
    }  # fmt: skip
    assert set(supported_operators()) <= tested


def check(
    name: str,
    attributes: dict[str, Any],
    constants: list[Any],
    shape: tuple[int, ...],
    kind: str,
    opset: int,
    outputs: int = 1,
) -> None:
    stored = {f"c{place}": value for place, value in enumerate(constants) if value is not None}
    inputs = ["input", *(f"c{place}" if value is not None else "" for place, value in enumerate(constants))]
    if name == "Where":
        stored, inputs = {"c": np.array([True, False] * 3), "y": floats(2)}, ["c", "input", "y"]
    made = ["out", *(f"out{place}" for place in range(1, outputs))]
    made = [*made, "places"] if name == "TopK" else made
    compare([helper.make_node(name, inputs, made, **attributes)], stored, shape, kind, opset)


def compare(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    shape: tuple[int, ...],
    kind: str,
    opset: int,
) -> None:
    values = np.random.default_rng(0).uniform(-2, 2, shape).astype(np.float32)
    values = {SIGNED: values, POSITIVE: np.abs(values) + 0.1, UNIT: values / 2.5}[kind]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(shape))],
        [onnx.ValueInfoProto(name=name) for name in nodes[-1].output],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    wanted = open_session(model, threads=1, level="none").run(None, {"input": values})
    with torch.no_grad():
        given = GraphNetwork(model).eval()(torch.from_numpy(values))
    for ours, theirs in zip(given, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-5)
