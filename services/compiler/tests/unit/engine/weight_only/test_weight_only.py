"""Packed weights: every algorithm loads, runs and is close; AWQ helps where a few channels are loud."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.errors import QuantizationFailed
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.weight_only import ALGORITHMS, WeightOnlyOptions, quantize_weights
from boardwright.compiler.engine.weight_only.rounding import round_in_blocks

WIDTH, HIDDEN = 64, 128


@pytest.fixture
def block() -> onnx.ModelProto:
    """LayerNormalization, two Linears over its result, and one after them: a transformer's feed-forward."""
    rng = np.random.default_rng(0)
    loud = np.ones(WIDTH, np.float32)
    loud[:4] = 30  # as outlier channels of trained transformers are
    constants = {
        "gain": loud,
        "shift": np.zeros(WIDTH, np.float32),
        "up": rng.normal(0, 0.1, (WIDTH, HIDDEN)).astype(np.float32),
        "gate": rng.normal(0, 0.1, (WIDTH, HIDDEN)).astype(np.float32),
        "down": rng.normal(0, 0.1, (32, HIDDEN)).astype(np.float32),
        "bias": rng.normal(0, 0.1, 32).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["input", "gain", "shift"], ["normal"], name="norm"),
        helper.make_node("MatMul", ["normal", "up"], ["a"], name="up"),
        helper.make_node("MatMul", ["normal", "gate"], ["b"], name="gate"),
        helper.make_node("Sigmoid", ["b"], ["c"], name="sigmoid"),
        helper.make_node("Mul", ["a", "c"], ["d"], name="mul"),
        helper.make_node("Gemm", ["d", "down", "bias"], ["output"], name="down", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [4, WIDTH])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [4, 32])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def samples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"input": rng.normal(size=(4, WIDTH)).astype(np.float32)} for _ in range(16)]


@pytest.mark.parametrize(
    ("algorithm", "bits"), [(name, bits) for name, widths in ALGORITHMS.items() for bits in sorted(widths)]
)
def test_every_algorithm_packs_loads_and_stays_close(block, samples, algorithm, bits):
    done = quantize_weights(block, WeightOnlyOptions(bits=bits, algorithm=algorithm), samples)
    assert [node.op_type for node in done.model.graph.node].count("MatMulNBits") == 3
    assert done.layers == ("up", "gate", "down")
    assert done.output_sqnr_db is not None
    assert done.output_sqnr_db > (12 if bits == 4 else 35)
    assert done.weight_bytes_after < done.weight_bytes_before * (0.3 if bits == 4 else 0.45)
    json.dumps(done.describe(), allow_nan=False)


def test_outputs_without_floats_have_no_signal_that_could_be_told(block, samples):
    block.graph.node.append(helper.make_node("ArgMax", ["output"], ["best"], axis=1))
    del block.graph.output[:]
    block.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, [4, 1]))
    assert quantize_weights(block, WeightOnlyOptions(), samples).output_sqnr_db is None


def test_scales_by_activation_help_and_go_into_the_normalization(block, samples):
    plain = quantize_weights(block, WeightOnlyOptions(algorithm="rtn"), samples)
    aware = quantize_weights(block, WeightOnlyOptions(algorithm="awq"), samples)
    assert aware.output_sqnr_db > plain.output_sqnr_db + 2
    joint = next(found for found in aware.scales if found.reads == "normal")
    assert joint.layers == ("up", "gate")
    assert joint.folded and joint.alpha > 0 and joint.error_ratio < 1
    assert sum(node.op_type == "Mul" for node in aware.model.graph.node) <= 2  # one for the layer without one


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_search_rounds_as_the_kernel_does(bits, symmetric):
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(100, 24)).astype(np.float32)
    rows = rng.normal(size=(8, 100)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")],
        "one",
        [value("x", TensorProto.FLOAT, [8, 100])],
        [value("y", TensorProto.FLOAT, [8, 24])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    packed = quantize_weights(model, WeightOnlyOptions(bits=bits, symmetric=symmetric)).model
    expected = rows @ round_in_blocks(weight, bits, 32, symmetric)
    np.testing.assert_allclose(open_session(packed).run(None, {"x": rows})[0], expected, atol=1e-3)


def test_the_same_input_gives_the_same_bytes(block, samples):
    first, second = (
        quantize_weights(block, WeightOnlyOptions(algorithm="awq"), samples).model.SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    )
    assert first == second


def test_gptq_stores_what_it_made_in_one_order(block, samples):
    """Its quantizer goes through a set of names, whose order is another in each process."""
    packed = quantize_weights(block, WeightOnlyOptions(algorithm="gptq"), samples).model
    names = [tensor.name for tensor in packed.graph.initializer]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"algorithm": "magic"}, "ALGORITHM_UNKNOWN"),
        ({"algorithm": "gptq", "bits": 8}, "WIDTH_UNSUPPORTED"),
        ({"algorithm": "hqq", "symmetric": True}, "SYMMETRY_UNSUPPORTED"),
        ({"block_size": 24}, "BLOCK_SIZE_UNSUPPORTED"),
        ({"algorithm": "awq"}, "SAMPLES_MISSING"),
        ({"exclude": ("upp",)}, "NODE_UNKNOWN"),
        ({"exclude": ("up", "gate", "down")}, "NOTHING_TO_QUANTIZE"),
    ],
)
def test_what_cannot_be_done_is_said(block, options, reason):
    with pytest.raises(QuantizationFailed) as caught:
        quantize_weights(block, WeightOnlyOptions(**options))
    assert caught.value.reason == reason


@pytest.mark.parametrize("algorithm", ["gptq", "k-quant"])
def test_a_layer_that_an_algorithm_cannot_store_is_left_out_and_named(block, samples, algorithm):
    for tensor in block.graph.initializer:  # 96 input channels, 3 blocks
        if tensor.name == "down":
            values = numpy_helper.to_array(tensor)[:, :96]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), "down"))
    block.graph.node[-1].input[0] = "narrow"
    block.graph.initializer.append(numpy_helper.from_array(np.array([96, 32], np.int64), "sizes"))
    block.graph.node.insert(
        5, helper.make_node("Split", ["d", "sizes"], ["narrow", "rest"], name="s", axis=1)
    )
    done = quantize_weights(block, WeightOnlyOptions(algorithm=algorithm), samples)
    assert done.layers == ("up", "gate")
    assert "odd number of blocks" in done.left_out["down"]
    assert [node.op_type for node in done.model.graph.node].count("MatMulNBits") == 2


def test_a_gemm_with_factors_is_packed_and_why_nothing_can_be_is_told(classifier):
    """The only layer reads 3 channels here, which is too few; with 32 of them it is packed, alpha and all."""
    with pytest.raises(QuantizationFailed, match="'gemm': It has 3 input channels") as caught:
        quantize_weights(classifier, WeightOnlyOptions())
    assert caught.value.reason == "NOTHING_TO_QUANTIZE"
    rng = np.random.default_rng(0)
    for name, shape in (("kernel", (32, 3, 3, 3)), ("weight", (32, 3))):
        tensor = next(entry for entry in classifier.graph.initializer if entry.name == name)
        tensor.CopyFrom(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    classifier.graph.node[-1].attribute.append(helper.make_attribute("alpha", 0.25))
    feeds = [{"input": rng.random((1, 3, 16, 16), dtype=np.float32)}]
    done = quantize_weights(classifier, WeightOnlyOptions(bits=8), feeds)
    assert done.layers == ("gemm",)
    assert done.output_sqnr_db > 35


def test_convolutions_are_not_packed(detector):
    with pytest.raises(QuantizationFailed, match="Convolutional networks"):
        quantize_weights(detector, WeightOnlyOptions())
