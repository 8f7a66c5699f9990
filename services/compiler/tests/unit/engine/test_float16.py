"""Float16: what follows the converter, what stays in float32 and why, and that the result runs."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.errors import QuantizationFailed
from boardwright.compiler.engine.evaluate.runner import Runner
from boardwright.compiler.engine.float16 import convert_float16
from boardwright.compiler.engine.graph.narrowed import holds_float16, rounding
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme
from boardwright.model import InputSpec, OutputSpec


def network(nodes, constants, given, made):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in made.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def dangerous() -> onnx.ModelProto:
    """A tensor beyond float16, read by two nodes, which bring it back; then steep operators."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["r"], name="first"),
        helper.make_node("Relu", ["r"], ["a"], name="before"),
        helper.make_node("Mul", ["a", "large"], ["b"], name="up"),
        helper.make_node("Mul", ["b", "small"], ["c"], name="down"),
        helper.make_node("Relu", ["b"], ["d"], name="relu"),
        helper.make_node("Mul", ["d", "small"], ["e"], name="down_too"),
        helper.make_node("Add", ["c", "e"], ["f"], name="add"),
        helper.make_node("Conv", ["f", "w2"], ["g"], name="second"),
        helper.make_node("Exp", ["g"], ["h"], name="exp"),
        helper.make_node("ReduceSum", ["h", "axes"], ["i"], name="sum", keepdims=1),
        helper.make_node("Div", ["h", "i"], ["y"], name="share"),
    ]
    constants = {
        "w1": rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "w2": rng.normal(size=(4, 4, 1, 1)).astype(np.float32) / 4,
        "large": np.array(2e5, np.float32),
        "small": np.array(5e-6, np.float32),
        "axes": np.array([1], np.int64),
    }
    return network(nodes, constants, [1, 3, 8, 8], {"y": [1, 4, 8, 8]})


def run(model, feed):
    """Answer by float16's arithmetic where the graph holds float16."""
    judged = rounding(model) if holds_float16(model) else model
    return open_session(judged, threads=1).run(None, feed)[0]


def element(model, name):
    values = [*model.graph.input, *model.graph.output]
    return next(value.type.tensor_type.elem_type for value in values if value.name == name)


def test_a_classifier_halves_and_answers_nearly_the_same(classifier, noise):
    feeds = [{"input": noise(1, 3, 16, 16)} for _ in range(3)]
    done = convert_float16(classifier, record=observe(classifier, feeds))
    assert (done.kept, done.notes) == ((), ())
    stored = [t for t in done.model.graph.initializer if t.name in ("kernel", "weight")]
    assert {tensor.data_type for tensor in stored} == {TensorProto.FLOAT16}
    assert element(done.model, "input") == element(done.model, "logits") == TensorProto.FLOAT
    assert done.casts == 2
    before, after = run(classifier, feeds[0]), run(done.model, feeds[0])
    assert 0 < np.abs(before - after).max() < 0.005 * np.abs(before).max()
    json.dumps(done.describe(), allow_nan=False)


def test_inputs_and_outputs_follow_where_they_are_asked_to(classifier, noise):
    done = convert_float16(classifier, keep_io=False)
    assert element(done.model, "input") == element(done.model, "logits") == TensorProto.FLOAT16
    assert done.casts == 0
    assert "calibration dataset" in done.notes[0]
    runner = Runner(
        done.model,
        InputSpec(name="input", height=16, width=16, batch=1),
        OutputSpec(task="classification", head="logits", num_classes=3),
    )
    outputs = runner.run(noise(1, 3, 16, 16))
    assert {out.dtype for out in outputs.values()} == {np.dtype(np.float32)}


def test_what_would_overflow_or_vanish_stays_in_float32_with_a_reason(dangerous, noise):
    feed = {"x": noise(1, 3, 8, 8)}
    done = convert_float16(dangerous, record=observe(dangerous, [feed]))
    rules = {name: found for found in done.kept for name in found.nodes}
    assert {rules[name].rule for name in ("up", "relu", "down", "down_too")} == {"overflow"}
    assert rules["sum"].rule == "sum"
    assert not {"first", "second", "add", "exp", "share"} & set(rules)  # exp reaches 1.5 at most here
    assert "float16 ends at 65504" in rules["up"].reason
    before, after = run(dangerous, feed), run(done.model, feed)
    assert np.isfinite(after).all()
    assert np.abs(before - after).max() < 0.005
    blind = convert_float16(dangerous, protect_automatically=False).model
    assert not np.isfinite(open_session(blind, level="none").run(None, feed)[0]).all() or (
        np.abs(before - run(blind, feed)).max() > 2 * np.abs(before - after).max()
    )


def test_steep_operators_stay_in_float32_unless_they_were_seen_to_be_small(dangerous, noise):
    blind = {name: found.rule for found in convert_float16(dangerous).kept for name in found.nodes}
    assert (blind["exp"], blind["sum"]) == ("steep", "sum")
    weight = next(tensor for tensor in dangerous.graph.initializer if tensor.name == "w2")
    louder = 20 * numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(louder, "w2"))
    record = observe(dangerous, [{"x": noise(1, 3, 8, 8)}])
    assert 1e3 < record.ranges["h"].magnitude < 3e4
    seen = {
        name: found.rule for found in convert_float16(dangerous, record=record).kept for name in found.nodes
    }
    assert seen["exp"] == "steep"


def test_between_two_nodes_in_float32_nothing_is_cast(dangerous, noise):
    done = convert_float16(dangerous, record=observe(dangerous, [{"x": noise(1, 3, 8, 8)}]))
    made = [name for node in done.model.graph.node for name in node.output]
    assert len(made) == len(set(made))
    producers = {name: node for node in done.model.graph.node for name in node.output}
    for node in done.model.graph.node:
        if node.op_type == "Cast":
            assert producers.get(node.input[0], node).op_type != "Cast" or node.input[0] not in producers
    up, down = (next(node for node in done.model.graph.node if node.name == name) for name in ("up", "down"))
    assert down.input[0] == up.output[0]


def test_an_output_of_a_node_in_float32_is_not_narrowed_on_its_way():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("Exp", ["a"], ["y"], name="exp"),
    ]
    model = network(nodes, {"w": np.full((1, 1, 1, 1), 12, np.float32)}, [1, 1, 1, 2], {"y": [1, 1, 1, 2]})
    done = convert_float16(model)
    feed = {"x": np.array([[[[1.0, 0.5]]]], np.float32)}
    assert run(done.model, feed).max() > 65504


def test_judging_rounds_every_tensor_as_numpy_rounds_it():
    """ONNX Runtime on x86 rounds the weights alone."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((8, 3), (5, 8))]
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["a"], name="first", transB=1),
        helper.make_node("Sigmoid", ["a"], ["b"], name="gate"),
        helper.make_node("Gemm", ["b", "w1"], ["y"], name="second", transB=1),
    ]
    model = network(nodes, {"w0": weights[0], "w1": weights[1]}, [16, 3], {"y": [16, 5]})
    values = 2 * rng.normal(size=(16, 3)).astype(np.float32)

    def narrow(array):
        return array.astype(np.float16).astype(np.float32)

    gate = narrow(1 / (1 + np.exp(-narrow(narrow(values) @ narrow(weights[0]).T))))
    expected = narrow(gate @ narrow(weights[1]).T)
    for keep_io in (True, False):
        found = run(convert_float16(model, keep_io=keep_io).model, {"x": values})
        assert (found == expected).mean() > 0.95  # but for ties that the order of sums decides
        np.testing.assert_allclose(found, expected, rtol=2**-9, atol=1e-3)


def test_operators_without_kernels_stay_even_unprotected():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("TopK", ["a", "k"], ["y", "i"], name="top"),
    ]
    constants = {"w": np.ones((2, 1, 1, 1), np.float32), "k": np.array([2], np.int64)}
    model = network(nodes, constants, [1, 1, 1, 4], {"y": [1, 2, 1, 2]})
    (kept,) = convert_float16(model, protect_automatically=False).kept
    assert (kept.rule, kept.nodes) == ("no-kernel", ("top",))


def test_what_cannot_be_converted_is_refused(classifier, noise):
    with pytest.raises(QuantizationFailed, match="Did you mean 'conv'") as caught:
        convert_float16(classifier, exclude=["convv"])
    assert caught.value.reason == "NODE_UNKNOWN"
    with pytest.raises(QuantizationFailed, match="has to stay in float32") as caught:
        convert_float16(classifier, exclude=[node.name for node in classifier.graph.node])
    assert caught.value.reason == "NOTHING_TO_CONVERT"
    integers = quantize(classifier, [{"input": noise(1, 3, 16, 16)}], PROFILES["x86-vnni"]).model
    with pytest.raises(QuantizationFailed, match="float32 checkpoint") as caught:
        convert_float16(integers)
    assert caught.value.reason == "ALREADY_QUANTIZED"


def test_profiles_say_who_gains():
    assert {name for name, scheme in PROFILES.items() if scheme.float16 != "none"} == {"tensorrt"}
    with pytest.raises(QuantizationFailed, match="choose one of none, inside, everywhere"):
        QuantizationScheme(float16="yes")
