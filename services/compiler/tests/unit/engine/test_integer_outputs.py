"""Outputs that leave the integers keep more than 8 bits per tensor would."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.session import kernel_counts, open_session
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.quantize import insert_quantization, quantize
from boardwright.compiler.engine.recover import RecoverOptions, recover
from boardwright.compiler.engine.scheme import PROFILES


def head(operator: str) -> onnx.ModelProto:
    """A layer whose channels differ a hundredfold, read by a Sigmoid that stays in floating point."""
    rng = np.random.default_rng(0)
    size = np.geomspace(0.05, 5, 6, dtype=np.float32)
    if operator == "Conv":
        weight = rng.normal(size=(6, 3, 1, 1)).astype(np.float32) * size[:, None, None, None]
        shape, made = [1, 3, 8, 8], [1, 6, 8, 8]
    else:
        weight = rng.normal(size=(12, 6)).astype(np.float32) * size[None]
        shape, made = [1, 12], [1, 6]
    inputs = ["x", "w"] if operator == "MatMul" else ["x", "w", "b"]
    graph = helper.make_graph(
        [
            helper.make_node(operator, inputs, ["h"], name="head"),
            helper.make_node("Sigmoid", ["h"], ["y"], name="decode"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, made)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(0.1 * size, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(model):
    rng = np.random.default_rng(1)
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    return [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(24)]


@pytest.mark.parametrize("operator", ["Conv", "Gemm", "MatMul"])
def test_small_channels_keep_their_precision_on_integer_kernels(operator):
    model = head(operator)
    feeds = samples(model)
    record = observe(onnx.shape_inference.infer_shapes(model), feeds)
    expected = [open_session(model).run(None, feed)[0] for feed in feeds]

    def error(quantized):
        session = open_session(quantized)
        return np.mean(
            [
                np.abs(session.run(None, feed)[0] - want)[:, :2].mean()
                for feed, want in zip(feeds, expected, strict=True)
            ]
        )

    scheme = PROFILES["x86-vnni"]
    plain = insert_quantization(model, record, scheme, {"decode"}, spread=False)
    better = insert_quantization(model, record, scheme, {"decode"})
    assert error(better) < 0.5 * error(plain)
    counted, before = kernel_counts(better), kernel_counts(plain)
    assert (counted["integer_layers"], counted["float_layers"]) == (1, 0)
    assert counted["conversions"] <= before["conversions"]


def test_logits_of_a_classifier_are_not_rounded(classifier, noise):
    feeds = [{"input": noise(1, 3, 16, 16)} for _ in range(8)]
    done = quantize(classifier, feeds, PROFILES["x86-vnni"])
    assert done.kernels == {"integer_layers": 2, "float_layers": 0, "conversions": 1}
    (gemm,) = (node for node in done.model.graph.node if node.op_type == "Gemm")
    assert gemm.output[0] == "logits"


@pytest.mark.parametrize("profile", ["tensorrt", "vx-delegate"])
def test_schemes_that_refuse_it_round_outputs_per_tensor(profile):
    model = head("Conv")
    done = quantize(model, samples(model), PROFILES[profile])
    for node in done.model.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] == "h_DequantizeLinear_Output":
            scale = next(t for t in done.model.graph.initializer if t.name == node.input[1])
            assert numpy_helper.to_array(scale).ndim == 0


@pytest.mark.parametrize("operator", ["Conv", "Gemm", "MatMul"])
def test_what_leaves_the_integers_keeps_its_name_for_those_who_judge_it(operator):
    """A classifier whose last layer a Softmax reads is recovered; the layer's output is found by name."""
    model = head(operator)
    given = samples(model)
    found = recover(
        model, lambda: given, PROFILES["x86-vnni"], RecoverOptions(methods=("ranges", "bias-correction"))
    )
    assert 0 < found.error_after <= found.error_before < 0.05
    made = quantize(model, given, PROFILES["x86-vnni"])
    assert "h" in {name for node in made.model.graph.node for name in node.output}
