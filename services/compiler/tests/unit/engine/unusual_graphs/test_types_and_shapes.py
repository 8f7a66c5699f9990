"""Element types, batches, sizes and opsets as exporters write them: imported, and answering the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.float16 import convert_float16
from boardwright.compiler.engine.graph.narrowed import rounding
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES

SIZE = 16


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
        pytest.param({"middle": "If"}, id="If"),
        pytest.param({"middle": "Loop"}, id="Loop"),
        pytest.param({"element": TensorProto.FLOAT16}, id="float16"),
        pytest.param({"element": TensorProto.DOUBLE}, id="float64"),
    ],
)
def test_it_is_imported_and_quantized_and_answers_nearly_the_same(network, imported, feeds, graph):
    found = imported(network(**graph))
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
        pytest.param({"middle": "If"}, id="If"),
        pytest.param({"middle": "Loop"}, id="Loop"),
        pytest.param({"element": TensorProto.UINT8}, id="uint8"),
    ],
)
def test_it_is_converted_to_float16_and_answers_nearly_the_same(network, imported, feeds, graph):
    integers = {"dtype": "uint8", "scale": 1.0} if "element" in graph else {}
    found = imported(network(**graph), **integers)
    (sample, *_) = samples = feeds(found, 2)
    record = observe(prepare_graph(found.model), samples)
    exact = open_session(found.model).run(None, sample)[0]
    for keep_io in (True, False):
        done = convert_float16(found.model, keep_io=keep_io, record=record)
        near = open_session(rounding(done.model)).run(None, sample)[0]
        assert 0 < np.abs(exact - near).max() < 0.005 * np.abs(exact).max()


def test_what_was_widened_is_told_and_a_float16_spec_follows(network, imported):
    found = imported(network(element=TensorProto.FLOAT16), dtype="float16")
    assert found.input_spec.dtype == "float32"
    assert found.notes[0].startswith("3 tensors of float16 became float32")
    assert all(tensor.data_type == TensorProto.FLOAT for tensor in found.model.graph.initializer)


def test_an_input_of_integers_is_fed_integers(network, imported, feeds):
    found = imported(network(element=TensorProto.UINT8), dtype="uint8", scale=1.0)
    samples = feeds(found)
    assert samples[0]["input"].dtype == np.uint8
    done = quantize(found.model, samples, PROFILES["x86-vnni"])
    exact = open_session(found.model).run(None, samples[0])[0]
    near = open_session(done.model).run(None, samples[0])[0]
    assert np.abs(exact - near).max() < 0.05 * np.abs(exact).max()


def test_weights_that_an_old_file_lists_among_its_inputs_are_no_inputs(network, imported, feeds, signal_kept):
    model = network(opset=9)
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    model.ir_version = 3
    found = imported(model)
    assert [value.name for value in found.model.graph.input] == ["input"]
    assert signal_kept(model, quantize(model, feeds(found), PROFILES["x86-vnni"]).model, feeds(found)) > 30


def test_shapes_that_follow_from_a_free_batch_are_found_once_it_is_fixed(
    network, imported, feeds, signal_kept
):
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
    found = imported(model)
    assert found.output_spec.num_classes == 3
    done = quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert signal_kept(found.model, done.model, feeds(found)) > 30


def test_nodes_that_come_before_what_they_read_are_put_in_order(network, imported, feeds, signal_kept):
    """As converters to float16 write them; runtimes load such files."""
    model = network()
    ordered = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(ordered))
    found = imported(model)
    assert signal_kept(network(), found.model, feeds(found)) > 100


def test_an_output_whose_axes_follow_from_a_free_batch_gets_the_runtimes(network, imported):
    """Ultralytics' dynamic exports cut by lengths that are computed: ONNX's own inference gives up."""
    model = network(batch="n")
    model.graph.node[-1].output[0] = "all"
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["all"], ["shape"]),
            helper.make_node("Gather", ["shape", "one"], ["classes"], axis=0),
            helper.make_node("Sub", ["classes", "one"], ["fewer"]),
            helper.make_node("Slice", ["all", "zero", "fewer", "one"], ["logits"]),
        ]
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([value]), name) for name, value in {"zero": 0, "one": 1}.items()
    )
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "fewer"
    found = imported(model)
    assert [axis.dim_value for axis in found.model.graph.output[0].type.tensor_type.shape.dim] == [1, 2]


def test_an_output_that_is_the_input_stays_what_it_is(network, imported, feeds, signal_kept):
    model = network()
    model.graph.output.append(model.graph.input[0])
    found = imported(model)
    for small in (
        quantize(found.model, feeds(found), PROFILES["x86-vnni"]).model,
        quantize_dynamic(found.model, PROFILES["x86-vnni"]).model,
    ):
        assert [value.name for value in small.graph.output] == ["logits", "input"]
        assert signal_kept(found.model, small, feeds(found)) > 25
