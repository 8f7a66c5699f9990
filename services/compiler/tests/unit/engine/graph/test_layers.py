"""What a layer costs, and how its weight is read."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.layers import layer_form, layer_macs, output_axis
from boardwright.compiler.engine.graph.topology import Topology


@pytest.mark.parametrize(
    ("operator", "options", "read", "weight", "made", "macs"),
    [
        ("Gemm", {}, [16, 48], [48, 10], [16, 10], 16 * 48 * 10),  # positions in the first axis: each counts
        ("MatMul", {}, [1, 16, 48], [48, 10], [1, 16, 10], 16 * 48 * 10),
        ("Conv", {"group": 4}, [1, 8, 6, 6], [12, 2, 1, 1], [1, 12, 6, 6], 12 * 36 * 2),
        ("Conv", {}, [0, 8, 6, 6], [12, 8, 1, 1], [0, 12, 6, 6], 12 * 36 * 8),
        ("ConvTranspose", {"strides": [2, 2]}, [1, 8, 6, 6], [8, 4, 2, 2], [1, 4, 12, 12], 8 * 36 * 4 * 4),
    ],
)
def test_multiplications_are_those_of_a_run(operator, options, read, weight, made, macs):
    node = helper.make_node(operator, ["x", "w"], ["y"], name="layer", **options)
    shapes = {name: [axis or "n" for axis in shape] for name, shape in (("x", read), ("y", made))}
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes["x"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["y"])],
        [numpy_helper.from_array(np.ones(weight, np.float32), "w")],
    )

    assert layer_macs(helper.make_model(graph), Topology(graph)) == {0: macs}


@pytest.mark.parametrize(
    ("node", "shape", "axis", "grouped"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"], group=2), (6, 2, 3, 3), 0, (2, 3, 2, 9)),
        (helper.make_node("Gemm", ["x", "w"], ["y"]), (4, 6), 1, (1, 6, 4, 1)),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (6, 4), 0, (1, 6, 4, 1)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (4, 6), 1, (1, 6, 4, 1)),
    ],
)
def test_a_weight_is_read_and_stored_again(node: onnx.NodeProto, shape, axis, grouped):
    weight = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    form = layer_form(node, len(shape))

    assert output_axis(node, len(shape)) == axis
    assert form.grouped(weight).shape == grouped
    assert form.rows(weight).shape[0] == shape[axis]
    np.testing.assert_array_equal(form.stored(form.rows(weight)), weight)
