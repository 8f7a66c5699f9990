"""Weights whose pairs of products stay within 16 bits, for x86 CPUs without VNNI."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from boardwright.compiler.engine.graph.session import kernel_counts, open_session
from boardwright.compiler.engine.grid import round_weight, weight_steps
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.quantize import insert_quantization
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.toolchains.pairs import largest_pairs
from boardwright.toolchains.precision import read_precision

X86 = PROFILES["x86"]
SHAPES = [(6, 16, 3, 3), (6, 3, 3, 3), (6, 1, 3, 3), (6, 5, 1, 1), (6, 33), (6, 2)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_pair_leaves_16_bits_whichever_way_weights_are_rounded(rng, shape):
    weight = rng.normal(size=shape).astype(np.float32)
    places = weight / weight_steps(weight, X86)
    for rounded in (np.ceil(np.abs(places)) * np.sign(places), np.rint(places), np.trunc(places)):
        assert largest_pairs(rounded).max() <= 128


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_never_wider_than_those_of_seven_bits_and_mostly_narrower(rng, shape):
    weight = rng.normal(size=(64, *shape[1:])).astype(np.float32)
    seven_bits = np.abs(weight).reshape(64, -1).max(axis=1) / 63
    steps = weight_steps(weight, X86).reshape(-1)
    assert (steps <= seven_bits * 1.0001).all()
    assert np.median(steps) < 0.8 * np.median(seven_bits)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_that_were_rounded_are_found_on_their_grid(rng, shape):
    weight = rng.normal(size=shape).astype(np.float32)
    steps = weight_steps(weight, X86)
    rounded = round_weight(weight, X86)
    turned = np.floor(weight / steps + rng.uniform(size=shape))  # either way, as learned rounding does
    turned = np.where(largest_pairs(turned).reshape(steps.shape) <= 128, turned, rounded / steps)
    seven_bits = np.abs(weight).reshape(len(weight), -1).max(axis=1).reshape(steps.shape) / 64
    for kept in (rounded, turned * steps, np.rint(weight / seven_bits) * seven_bits):
        stored = kept.astype(np.float32)
        np.testing.assert_allclose(round_weight(stored, X86), kept, atol=1e-6)


def test_a_channel_of_zeros_has_a_step(rng):
    weight = rng.normal(size=(3, 4)).astype(np.float32)
    weight[1] = 0
    steps = weight_steps(weight, X86)
    assert np.isfinite(steps).all() and (steps > 0).all()
    assert not round_weight(weight, X86)[1].any()


@pytest.fixture
def network(rng):
    """Odd and even channels, a depthwise convolution and a matrix, with weights that saturate in 8 bits."""
    shapes = {"first": (8, 3, 3, 3), "deep": (8, 1, 3, 3), "odd": (5, 8, 1, 1), "last": (6, 5, 3, 3)}
    nodes, stored, value = [], [], "x"
    for name, shape in shapes.items():
        weight = np.abs(rng.normal(1, 0.1, shape)).astype(np.float32)
        stored.append(numpy_helper.from_array(weight, f"{name}.weight"))
        options = {"group": 8} if name == "deep" else {}
        pads = [shape[2] // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv", [value, f"{name}.weight"], [name], name=f"{name}.conv", pads=pads, **options
            )
        )
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"], name=f"{name}.relu"))
        value = f"{name}.relu"
    matrix = np.abs(rng.normal(1, 0.1, (6, 4))).astype(np.float32)
    stored.append(numpy_helper.from_array(matrix, "matrix"))
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    nodes.append(helper.make_node("MatMul", ["flat", "matrix"], ["y"], name="matmul"))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 4])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("profile", "overflows"), [("x86", False), ("x86-vnni", True)])
def test_a_graph_without_such_pairs_computes_the_same_with_kernels_that_saturate(network, profile, overflows):
    feed = {"x": np.ones((1, 3, 8, 8), np.float32)}
    record = observe(network, [feed])
    quantized = insert_quantization(network, record, PROFILES[profile], set())
    assert read_precision(quantized.graph).wide_weights is overflows
    if not overflows:  # on a CPU with VNNI both sessions take the same kernels
        deployed = open_session(quantized, exact=False).run(None, feed)[0]
        np.testing.assert_array_equal(deployed, open_session(quantized).run(None, feed)[0])


def convolution(rng, channels, multiplier, kernel, stride, dilation):
    """Weights and inputs as large as they get: what adds up in 16 bits saturates."""
    weight = rng.uniform(0.9, 1, (channels * multiplier, 1, kernel, kernel)).astype(np.float32)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], name="conv", group=channels, pads=[kernel // 2] * 4,
        strides=[stride] * 2, dilations=[dilation] * 2,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", 1, [1, channels, 11, 11])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("channels", "kernel", "stride", "dilation"), [
    (2, 3, 1, 1), (5, 3, 2, 1), (8, 3, 1, 2), (16, 5, 1, 1), (17, 5, 2, 1), (33, 3, 1, 1), (40, 7, 1, 1),
])  # fmt: skip
def test_depthwise_weights_have_no_pairs_and_take_all_eight_bits(rng, channels, kernel, stride, dilation):
    """By kernels that add pairs in 16 bits, and by exact ones: the same bits."""
    feed = {"x": np.ones((1, channels, 11, 11), np.float32)}
    for multiplier in (1, 2):
        model = convolution(rng, channels, multiplier, kernel, stride, dilation)
        quantized = insert_quantization(model, observe(model, [feed]), X86, set(), spread=False)
        (weight,) = (tensor for tensor in quantized.graph.initializer if tensor.name == "w_quantized")
        largest = np.abs(numpy_helper.to_array(weight).astype(int)).max()
        assert largest == 127 if multiplier == 1 else largest < 80
        assert not read_precision(quantized.graph).wide_weights
        assert kernel_counts(quantized)["integer_layers"] == 1
        deployed = open_session(quantized, exact=False).run(None, feed)[0]
        np.testing.assert_array_equal(deployed, open_session(quantized).run(None, feed)[0])


def test_weights_of_a_depthwise_convolution_that_another_layer_reads_keep_their_pairs(rng):
    """One weight, read by eight kernels of one channel and by eight kernels over the same one channel."""
    model = convolution(rng, 8, 1, 3, 1, 1)
    first = helper.make_node("Conv", ["one", "w"], ["z"], name="first", pads=[1] * 4)
    model.graph.node.append(first)
    model.graph.input.append(helper.make_tensor_value_info("one", 1, [1, 1, 11, 11]))
    model.graph.output.append(helper.make_tensor_value_info("z", 1, None))
    feed = {"x": np.ones((1, 8, 11, 11), np.float32), "one": np.ones((1, 1, 11, 11), np.float32)}
    quantized = insert_quantization(model, observe(model, [feed]), X86, set(), spread=False)
    assert not read_precision(quantized.graph).wide_weights


def test_weights_that_were_trained_to_seven_bits_stay_on_their_grid_in_a_depthwise_layer(rng):
    weight = rng.normal(size=(6, 1, 3, 3)).astype(np.float32)
    seven_bits = np.abs(weight).reshape(6, -1).max(axis=1).reshape(-1, 1, 1, 1) / 64
    kept = (np.rint(weight / seven_bits) * seven_bits).astype(np.float32)
    np.testing.assert_allclose(round_weight(kept, X86, groups=6), kept, atol=1e-6)


def test_eight_bits_are_kept_where_no_pair_needs_seven(network):
    """Weights of alternating signs never add up: they take all of INT8."""
    for tensor in network.graph.initializer:
        weight = numpy_helper.to_array(tensor).copy()
        if weight.ndim == 4 and weight.shape[1] % 2 == 0:
            weight[:, 1::2] *= -1
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    record = observe(network, [{"x": np.ones((1, 3, 8, 8), np.float32)}])
    quantized = insert_quantization(network, record, X86, set(), spread=False)
    stored: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in quantized.graph.initializer}
    assert np.abs(numpy_helper.to_array(stored["odd.weight_quantized"]).astype(int)).max() == 127
    assert np.abs(numpy_helper.to_array(stored["first.weight_quantized"]).astype(int)).max() < 80
