"""What a branch reads by name stays what and where it was."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.float16 import convert_float16
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES

SIZE = 16


def test_a_branch_reads_what_it_read_before(network, imported, feeds, signal_kept):
    """The branch reads a Relu's output and a layer's weight by name: neither may change under it."""
    value = helper.make_tensor_value_info
    convolve = helper.make_node("Conv", ["b", "kernel2"], ["t"], pads=[1, 1, 1, 1])
    then = helper.make_graph([convolve], "then", [], [value("t", TensorProto.FLOAT, None)])
    other = helper.make_graph(
        [helper.make_node("Identity", ["b"], ["o"])], "else", [], [value("o", TensorProto.FLOAT, None)]
    )

    def middle(read: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Conv", [read, "kernel2"], ["e"], pads=[1, 1, 1, 1]),
            helper.make_node("ReduceMax", [read], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "least"], ["positive"]),
            helper.make_node("If", ["positive"], ["f"], name="if", then_branch=then, else_branch=other),
            helper.make_node("Add", ["e", "f"], ["x"]),
        ]

    model = network(middle=middle)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(
                np.random.default_rng(5).normal(size=(8, 8, 3, 3)).astype(np.float32), "kernel2"
            ),
            numpy_helper.from_array(np.array(0, np.float32), "least"),
        ]
    )
    found = imported(model)
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert signal_kept(found.model, done.model, feeds(found)) > 30


def test_a_branch_comes_after_what_it_reads_by_name(network, imported, feeds, signal_kept, branch):
    """Its condition is known at once, long before the Relu that a branch reads."""

    def middle(read: str) -> list[onnx.NodeProto]:
        decided = branch(read)
        decided[0].input[0] = "input"
        weigh = helper.make_node("MatMul", ["x", "square"], ["weighed"])
        return [*decided, weigh, helper.make_node("Identity", ["weighed"], ["y"])]

    model = network(middle=middle)
    square = np.random.default_rng(5).normal(size=(SIZE, SIZE)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(square, "square"))
    pooling = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pooling.input[0] = "y"
    found = imported(model)
    for small in (
        quantize(found.model, feeds(found), PROFILES["x86-vnni"]).model,
        quantize_dynamic(found.model, PROFILES["x86-vnni"]).model,
        convert_float16(found.model).model,
    ):
        assert signal_kept(found.model, small, feeds(found)) > 25
