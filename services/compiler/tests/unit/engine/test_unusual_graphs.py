"""Graphs that exporters really write and tools trip over: each gives the right result or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.float16 import convert_float16
from boardwright.compiler.engine.graph.narrowed import rounding
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.importing import Declared, ImportedModel, import_checkpoint
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.pruning import sparsify
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.recover import recover
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.compiler.engine.weight_only import WeightOnlyOptions, quantize_weights
from boardwright.model import InputSpec, preprocess

SIZE = 16
SPEC = {"height": SIZE, "width": SIZE, "resize": "stretch", "name": "input"}


def network(
    *,
    element: int = TensorProto.FLOAT,
    batch: int | str = 1,
    size: int | str = SIZE,
    opset: int = 17,
    middle: Callable[[str], list[onnx.NodeProto]] | None = None,
    kernel: np.ndarray | None = None,
) -> onnx.ModelProto:
    """Conv, Relu, [middle], pooling and Gemm; uint8 images are cast first."""
    rng = np.random.default_rng(0)
    floating = TensorProto.FLOAT if element == TensorProto.UINT8 else element
    dtype = helper.tensor_dtype_to_np_dtype(floating)
    constants = {
        "kernel": (rng.normal(size=(8, 3, 3, 3)) if kernel is None else kernel).astype(dtype),
        "weight": rng.normal(size=(8, 3)).astype(dtype),
        "bias": np.zeros(3, dtype),
    }
    start = "input"
    nodes = []
    if element == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT))
        start = "floats"
    nodes.append(helper.make_node("Conv", [start, "kernel"], ["a"], name="conv", pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Relu", ["a"], ["b"]))
    nodes += middle("b") if middle else [helper.make_node("Identity", ["b"], ["x"])]
    nodes.append(helper.make_node("GlobalAveragePool", ["x"], ["c"]))
    nodes.append(helper.make_node("Flatten", ["c"], ["d"]))
    nodes.append(helper.make_node("Gemm", ["d", "weight", "bias"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", element, [batch, 3, size, size])],
        [helper.make_tensor_value_info("logits", floating, [batch, 3])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def branch(read: str) -> list[onnx.NodeProto]:
    """An If over the largest value."""
    value = helper.make_tensor_value_info
    then = helper.make_graph(
        [helper.make_node("Identity", [read], ["t"])], "then", [], [value("t", TensorProto.FLOAT, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", [read], ["o"])], "else", [], [value("o", TensorProto.FLOAT, None)]
    )
    zero = numpy_helper.from_array(np.array(0, np.float32))
    return [
        helper.make_node("ReduceMax", [read], ["largest"], keepdims=0),
        helper.make_node("Constant", [], ["zero"], value=zero),
        helper.make_node("Greater", ["largest", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["x"], name="if", then_branch=then, else_branch=other),
    ]


def loop(read: str) -> list[onnx.NodeProto]:
    """A Loop that doubles twice."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["carried", "carried"], ["doubled"]),
        ],
        "body",
        [
            value("number", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("carried", TensorProto.FLOAT, None),
        ],
        [value("go_on", TensorProto.BOOL, []), value("doubled", TensorProto.FLOAT, None)],
    )
    twice = numpy_helper.from_array(np.array(2, np.int64))
    return [
        helper.make_node("Constant", [], ["twice"], value=twice),
        helper.make_node("Loop", ["twice", "", read], ["x"], name="loop", body=body),
    ]


def imported(tmp_path: Path, model: onnx.ModelProto, **spec: object) -> ImportedModel:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    declared = InputSpec.from_json({**SPEC, **spec})
    return import_checkpoint(path, Declared(input_spec=declared, task="classification"))


def feeds(found: ImportedModel, count: int = 8) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    batch = found.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    images = rng.integers(0, 255, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return [
        {found.input_spec.name: np.repeat(preprocess(image, found.input_spec)[0], batch, axis=0)}
        for image in images
    ]


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param({"batch": "n"}, id="free batch"),
        pytest.param({"batch": "n", "size": "side"}, id="free size"),
        pytest.param({"batch": 4}, id="batch of 4"),
        pytest.param({"opset": 7}, id="opset 7"),
        pytest.param({"opset": 9}, id="opset 9"),
        pytest.param({"opset": 11}, id="opset 11"),
        pytest.param({"opset": 21}, id="opset 21"),
        pytest.param({"middle": branch}, id="If"),
        pytest.param({"middle": loop}, id="Loop"),
        pytest.param({"element": TensorProto.FLOAT16}, id="float16"),
        pytest.param({"element": TensorProto.DOUBLE}, id="float64"),
    ],
)
def test_it_is_imported_and_quantized_and_answers_nearly_the_same(tmp_path, graph):
    found = imported(tmp_path, network(**graph))
    samples = feeds(found)
    done = quantize(found.model, samples, PROFILES["x86-vnni"])
    before, after = open_session(found.model), open_session(done.model)
    exact = np.stack([before.run(None, feed)[0] for feed in samples])
    near = np.stack([after.run(None, feed)[0] for feed in samples])
    assert exact.dtype == np.float32
    assert np.abs(exact - near).max() < 0.05 * np.abs(exact).max()
    assert done.kernels["integer_layers"] >= 1


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param({"batch": "n"}, id="free batch"),
        pytest.param({"opset": 9}, id="opset 9"),
        pytest.param({"middle": branch}, id="If"),
        pytest.param({"middle": loop}, id="Loop"),
        pytest.param({"element": TensorProto.UINT8}, id="uint8"),
    ],
)
def test_it_is_converted_to_float16_and_answers_nearly_the_same(tmp_path, graph):
    integers = {"dtype": "uint8", "scale": 1.0} if "element" in graph else {}
    found = imported(tmp_path, network(**graph), **integers)
    (sample, *_) = samples = feeds(found, 2)
    record = observe(prepare_graph(found.model), samples)
    exact = open_session(found.model).run(None, sample)[0]
    for keep_io in (True, False):
        done = convert_float16(found.model, keep_io=keep_io, record=record)
        near = open_session(rounding(done.model)).run(None, sample)[0]
        assert 0 < np.abs(exact - near).max() < 0.005 * np.abs(exact).max()


def test_what_was_widened_is_told_and_a_float16_spec_follows(tmp_path):
    found = imported(tmp_path, network(element=TensorProto.FLOAT16), dtype="float16")
    assert found.input_spec.dtype == "float32"
    assert found.notes[0].startswith("3 tensors of float16 became float32")
    assert all(tensor.data_type == TensorProto.FLOAT for tensor in found.model.graph.initializer)


def test_an_input_of_integers_is_fed_integers(tmp_path):
    found = imported(tmp_path, network(element=TensorProto.UINT8), dtype="uint8", scale=1.0)
    samples = feeds(found)
    assert samples[0]["input"].dtype == np.uint8
    done = quantize(found.model, samples, PROFILES["x86-vnni"])
    exact = open_session(found.model).run(None, samples[0])[0]
    near = open_session(done.model).run(None, samples[0])[0]
    assert np.abs(exact - near).max() < 0.05 * np.abs(exact).max()


def test_an_operator_that_no_opset_has_is_named(tmp_path):
    model = network(middle=lambda read: [helper.make_node("Frobnicate", [read], ["x"])])
    with pytest.raises(EngineError, match="the operator Frobnicate, which opset 17") as caught:
        imported(tmp_path, model)
    assert caught.value.reason == "CHECKPOINT_UNKNOWN_OPERATOR"


def test_nan_weights_are_noted_at_import_and_stop_the_calibration(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(8, 3, 3, 3))
    kernel[0, 0, 0, 0] = np.nan
    found = imported(tmp_path, network(kernel=kernel))
    assert "kernel hold NaN" in found.notes[0]
    with pytest.raises(EngineError) as caught:
        quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert caught.value.reason == "CALIBRATION_NOT_FINITE"


@pytest.mark.parametrize(
    "compress",
    [
        pytest.param(
            lambda model: quantize_dynamic(model, PROFILES["x86-vnni"], convolutions=True), id="dynamic"
        ),
        pytest.param(lambda model: quantize_weights(model, WeightOnlyOptions()), id="weight-only"),
        pytest.param(convert_float16, id="float16"),
        pytest.param(lambda model: sparsify(model, 0.5), id="sparse"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_passes_that_run_no_sample_refuse_weights_that_are_no_numbers(compress, value):
    kernel = np.random.default_rng(0).normal(size=(8, 3, 3, 3))
    kernel[0, 0, 0, 0] = value
    with pytest.raises(EngineError, match="The weights 'kernel' hold NaN or infinity") as caught:
        compress(network(kernel=kernel))
    assert caught.value.reason == "WEIGHTS_NOT_FINITE"


def test_layers_that_always_answer_the_same_have_nothing_to_be_recovered(tmp_path):
    def middle(read: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Conv", [read, "kernel2"], ["x"], name="second", pads=[1, 1, 1, 1])]

    model = network(middle=middle, kernel=np.zeros((8, 3, 3, 3)))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "kernel2"))
    found = imported(tmp_path, model)
    samples = feeds(found, 12)
    done = recover(found.model, lambda: samples, PROFILES["x86-vnni"])
    assert not any(method.applied for method in done.methods)


def test_activations_that_are_always_zero_are_quantized(tmp_path):
    found = imported(tmp_path, network(kernel=np.zeros((8, 3, 3, 3))))
    samples = feeds(found)
    done = quantize(found.model, samples, PROFILES["x86-vnni"])
    exact = open_session(found.model).run(None, samples[0])[0]
    np.testing.assert_allclose(open_session(done.model).run(None, samples[0])[0], exact, atol=1e-3)


def test_an_image_of_another_size_is_no_sample(tmp_path):
    found = imported(tmp_path, network())
    wrong = [{"input": np.zeros((1, 3, SIZE + 1, SIZE), np.float32)}]
    with pytest.raises(EngineError) as caught:
        quantize(found.model, wrong, PROFILES["x86-vnni"])
    assert caught.value.reason == "CALIBRATION_INPUT_UNFIT"
    assert "has the shape 1x3x17x16" in caught.value.message


def test_weights_that_an_old_file_lists_among_its_inputs_are_no_inputs(tmp_path):
    model = network(opset=9)
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    model.ir_version = 3
    found = imported(tmp_path, model)
    assert [value.name for value in found.model.graph.input] == ["input"]
    assert signal_kept(model, quantize(model, feeds(found), PROFILES["x86-vnni"]).model, feeds(found)) > 30


def test_a_branch_reads_what_it_read_before(tmp_path):
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
    found = imported(tmp_path, model)
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert signal_kept(found.model, done.model, feeds(found)) > 30


def test_a_branch_comes_after_what_it_reads_by_name(tmp_path):
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
    found = imported(tmp_path, model)
    for small in (
        quantize(found.model, feeds(found), PROFILES["x86-vnni"]).model,
        quantize_dynamic(found.model, PROFILES["x86-vnni"]).model,
        convert_float16(found.model).model,
    ):
        assert signal_kept(found.model, small, feeds(found)) > 25


def test_shapes_that_follow_from_a_free_batch_are_found_once_it_is_fixed(tmp_path):
    """As PyTorch writes view(b, groups, c // groups, h, w): the rank itself is computed."""

    def middle(read: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Shape", [read], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
            helper.make_node("Unsqueeze", ["batch"], ["batches"], axes=[0]),
            helper.make_node("Concat", ["batches", "rest"], ["wanted"], axis=0),
            helper.make_node("Reshape", [read, "wanted"], ["grouped"]),
            helper.make_node("ConstantOfShape", ["rank"], ["halves"], value=two),
            helper.make_node("Concat", ["batches", "halves", "side", "side"], ["back"], axis=0),
            helper.make_node("Reshape", ["grouped", "back"], ["x"]),
        ]

    two = numpy_helper.from_array(np.array([8], np.int64))
    model = network(batch="n", opset=11, middle=middle)
    constants = {"zero": 0, "rest": [2, 4, SIZE, SIZE], "side": [SIZE], "rank": [1]}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()
    )
    pooling = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    mean = helper.make_node("ReduceMean", ["x"], ["d"], axes=[2, 3], keepdims=0)  # has any rank, to ONNX
    model.graph.node.remove(next(node for node in model.graph.node if node.op_type == "Flatten"))
    pooling.CopyFrom(mean)
    found = imported(tmp_path, model)
    assert found.output_spec.num_classes == 3
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert signal_kept(found.model, done.model, feeds(found)) > 30


def test_factors_of_a_gemm_are_kept(tmp_path):
    model = network()
    gemm = model.graph.node[-1]
    gemm.attribute.extend([helper.make_attribute("alpha", 0.5), helper.make_attribute("beta", 3.0)])
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([1, -2, 3], np.float32), "bias"))
    found = imported(tmp_path, model)
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert signal_kept(found.model, done.model, feeds(found)) > 30
    assert done.kernels["float_layers"] == 0


@pytest.mark.parametrize("batched", [False, True], ids=["left", "batched"])
def test_a_matrix_weight_that_is_no_plain_right_factor_is_quantized(tmp_path, batched):
    weight = np.random.default_rng(6).normal(size=(8, 6, 6) if batched else (8, 8)).astype(np.float32)

    def middle(read: str) -> list[onnx.NodeProto]:
        rows = [1, 8, -1, 6] if batched else [1, 8, -1]
        first, second = ("r", "weight2") if batched else ("weight2", "r")
        return [
            helper.make_node("Slice", [read, "zeros", "ends", "axes"], ["s"]),
            helper.make_node("Constant", [], ["rows"], value_ints=rows),
            helper.make_node("Reshape", ["s", "rows"], ["r"]),
            helper.make_node("MatMul", [first, second], ["m"]),
            helper.make_node("Constant", [], ["back"], value_ints=[1, 8, -1, 6]),
            helper.make_node("Reshape", ["m", "back"], ["x"]),
        ]

    model = network(middle=middle)
    indices = {"zeros": [0, 0], "ends": [6, 6], "axes": [2, 3]}
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight2"))
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(values, np.int64), name) for name, values in indices.items()
    )
    found = imported(tmp_path, model)
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert signal_kept(found.model, done.model, feeds(found)) > 28


@pytest.mark.parametrize("profile", ["x86-vnni", "tensorrt"])
def test_a_transposed_convolution_in_groups_with_a_bias_is_quantized(tmp_path, profile):
    rng = np.random.default_rng(10)

    def middle(read: str) -> list[onnx.NodeProto]:
        inputs = [read, "kernel2", "bias2"]
        return [helper.make_node("ConvTranspose", inputs, ["x"], strides=[2, 2], group=4)]

    model = network(middle=middle)
    constants = {"kernel2": rng.normal(size=(8, 2, 2, 2)), "bias2": rng.normal(size=8)}
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    )
    found = imported(tmp_path, model)
    done = quantize(found.model, feeds(found), PROFILES[profile])
    assert signal_kept(found.model, done.model, feeds(found)) > 28


def test_a_weight_of_several_layers_is_judged_without_saturation(tmp_path):
    """ONNX Runtime 1.31 fails to open such a graph for exact products; it was judged by saturated ones."""

    def middle(read: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Conv", [read, "kernel2"], ["e"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["e"], ["f"]),
            helper.make_node("Conv", ["f", "kernel2"], ["x"], pads=[1, 1, 1, 1]),
        ]

    model = network(middle=middle)
    shared = np.abs(np.random.default_rng(7).normal(size=(8, 8, 3, 3))).astype(np.float32)  # they add up
    model.graph.initializer.append(numpy_helper.from_array(shared, "kernel2"))
    found = imported(tmp_path, model)
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert sum(tensor.name == "kernel2_quantized" for tensor in done.model.graph.initializer) == 1
    assert signal_kept(found.model, done.model, feeds(found)) > 30


def test_layers_behind_an_operator_of_the_runtimes_own_are_quantized(tmp_path):
    def middle(read: str) -> list[onnx.NodeProto]:
        return [helper.make_node("QuickGelu", [read], ["x"], domain="com.microsoft", alpha=1.7)]

    model = network(middle=middle)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = imported(tmp_path, model)
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert done.kernels["integer_layers"] == 2
    assert signal_kept(found.model, done.model, feeds(found)) > 30


def test_weights_stored_as_integers_become_floats_at_import(tmp_path):
    def middle(read: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("DequantizeLinear", ["integers", "steps", "zeros"], ["kernel2"], axis=0),
            helper.make_node("Conv", [read, "kernel2"], ["x"], pads=[1, 1, 1, 1]),
        ]

    model = network(middle=middle)
    integers = np.random.default_rng(8).integers(-127, 128, (8, 8, 3, 3), dtype=np.int8)
    steps = np.linspace(0.001, 0.01, 8, dtype=np.float32)
    constants = {"integers": integers, "steps": steps, "zeros": np.arange(8, dtype=np.int8)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    found = imported(tmp_path, model)
    assert "1 weights stored as integers became float32" in found.notes[-1]
    assert all(node.op_type != "DequantizeLinear" for node in found.model.graph.node)
    assert signal_kept(model, found.model, feeds(found)) > 100
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert signal_kept(found.model, done.model, feeds(found)) > 30


def test_infinity_on_purpose_is_no_fault_and_stays_in_floating_point(tmp_path):
    """A maximum padded with minus infinity, and positions masked with it before a softmax."""

    def middle(read: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Pad", [read, "pads", "never"], ["p"]),
            helper.make_node("MaxPool", ["p"], ["q"], kernel_shape=[3, 3]),
            helper.make_node("Conv", ["q", "kernel2"], ["e"], pads=[1, 1, 1, 1]),
            helper.make_node("Where", ["mask", "e", "never"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["shares"], axis=3),
            helper.make_node("Mul", ["shares", "q"], ["x"]),
        ]

    model = network(middle=middle)
    rng = np.random.default_rng(9)
    constants = {
        "never": np.array(-np.inf, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "kernel2": rng.normal(size=(8, 8, 3, 3)).astype(np.float32),
        "mask": np.tri(SIZE, dtype=np.bool_),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    found = imported(tmp_path, model)
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert {"p", "scores"}.isdisjoint(done.record.ranges)
    told = next(entry for entry in done.exclusions if entry.rule == "infinity")
    assert "hold infinity by a constant" in told.reason
    assert signal_kept(found.model, done.model, feeds(found)) > 25
    # Whoever switches the rules off gets a graph that works all the same.
    bare = quantize(found.model, feeds(found), PROFILES["x86-vnni"], protect_automatically=False)
    assert np.isfinite(open_session(bare.model).run(None, feeds(found)[0])[0]).all()


def test_a_graph_none_of_whose_layers_is_rounded_is_not_called_quantized(tmp_path):
    found = imported(tmp_path, network())
    layers = [node.name for node in found.model.graph.node if node.op_type in ("Conv", "Gemm")]
    with pytest.raises(EngineError, match="No layer of the graph would be quantized") as caught:
        quantize(found.model, feeds(found), PROFILES["x86-vnni"], exclude=layers)
    assert caught.value.reason == "NOTHING_TO_QUANTIZE"


def test_a_graph_that_loads_and_fails_when_it_runs_is_told(tmp_path):
    """Its Reshape asks for what only a run shows; an input without which it fails says nothing of INT8."""

    def middle(read: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("ReduceMax", [read], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "least"], ["wide"]),
            helper.make_node("Where", ["wide", "fitting", "odd"], ["wanted"]),
            helper.make_node("Reshape", [read, "wanted"], ["x"]),
        ]

    model = network(middle=middle)
    fitting, odd = [1, 8, SIZE, SIZE], [1, 8, SIZE, 7]
    constants = {"least": np.array(1e-6, np.float32), "fitting": np.array(fitting), "odd": np.array(odd)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    found = imported(tmp_path, model)
    with pytest.raises(EngineError, match=r"loads and fails when it runs.*Reshape") as caught:
        open_session(found.model).run(None, {"input": np.zeros((1, 3, SIZE, SIZE), np.float32)})
    assert caught.value.reason == "MODEL_FAILED"
    assert quantize(found.model, feeds(found), PROFILES["x86-vnni"]).kernels["integer_layers"] == 2


def test_a_graph_that_the_runtime_refuses_is_told_once_with_what_to_do(capfd):
    model = network(middle=lambda read: [helper.make_node("Relu", [read], ["x"], swirl=1)])
    with pytest.raises(EngineError, match=r"does not accept .*swirl.* in exclude\.$") as caught:
        open_session(model)
    assert caught.value.reason == "RUNTIME_REFUSED"
    assert capfd.readouterr().err == ""


def test_a_quantized_graph_that_would_only_load_is_refused(tmp_path, monkeypatch):
    from boardwright.compiler.engine import quantize as module

    model = network()
    found = imported(tmp_path, model)
    monkeypatch.setattr(module, "insert_quantization", _with_a_wrong_reshape(module.insert_quantization))
    with pytest.raises(EngineError, match="does not run") as caught:
        quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert caught.value.reason == "QUANTIZED_MODEL_REFUSED"


def test_a_graph_of_any_pass_that_would_only_load_is_refused(monkeypatch):
    from onnxruntime.transformers import float16 as converter

    from boardwright.compiler.engine import dynamic
    from boardwright.compiler.engine.weight_only import quantizing

    model = network(middle=_wide)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((SIZE, 64), np.float32), "wide"))
    monkeypatch.setattr(dynamic, "drop_metadata", _reshape_wrongly)
    monkeypatch.setattr(quantizing, "drop_metadata", _reshape_wrongly)
    convert = converter.convert_float_to_float16
    monkeypatch.setattr(converter, "convert_float_to_float16", _with_a_wrong_reshape(convert))
    for compress in (
        lambda: quantize_dynamic(model, PROFILES["x86-vnni"]),
        lambda: quantize_weights(model, WeightOnlyOptions(block_size=16)),
        lambda: convert_float16(model),
    ):
        with pytest.raises(EngineError, match="does not load or run"):
            compress()


def _wide(read: str) -> list[onnx.NodeProto]:
    return [helper.make_node("MatMul", [read, "wide"], ["x"], name="matmul")]


def _with_a_wrong_reshape(insert: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """Let the last layer's Reshape ask for more values than there are."""

    def broken(*given: object, **options: object) -> onnx.ModelProto:
        made = insert(*given, **options)
        _reshape_wrongly(made)
        return made

    return broken


def _reshape_wrongly(made: onnx.ModelProto) -> None:
    last = made.graph.node[-1]
    name = last.output[0]
    last.output[0] = "before"
    constants = {"none": np.zeros(1, np.float32), "seven": np.array([1, 7], np.float32)}
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    made.graph.node.extend(
        [
            helper.make_node("Mul", ["before", "none"], ["zeros"]),
            helper.make_node("ReduceMax", ["zeros"], ["zero"], axes=[0, 1], keepdims=0),
            helper.make_node("Add", ["zero", "seven"], ["length"]),
            helper.make_node("Cast", ["length"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["before", "whole"], [name]),
        ]
    )
    for number, axis in enumerate(made.graph.output[0].type.tensor_type.shape.dim):
        axis.dim_param = f"free{number}"


def signal_kept(exact: onnx.ModelProto, near: onnx.ModelProto, samples: list[dict[str, np.ndarray]]) -> float:
    """Return the decibels of the first output's signal over its error."""
    one, other = open_session(exact), open_session(near)
    before = np.stack([one.run(None, feed)[0] for feed in samples])
    after = np.stack([other.run(None, feed)[0] for feed in samples])
    return float(10 * np.log10((before**2).sum() / max(((before - after) ** 2).sum(), 1e-30)))
