"""Dynamic quantization: matrices by default, convolutions only when asked, and it says what that costs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.errors import QuantizationFailed
from boardwright.compiler.engine.graph.session import kernel_counts, open_session
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES


def operators(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_matrices_become_integers_and_convolutions_stay(classifier, noise, caplog):
    done = quantize_dynamic(classifier, PROFILES["x86-vnni"])
    assert done.layers == {"Gemm": 1}
    assert not caplog.messages  # the quantizer's advice is followed, and not given
    assert "ConvInteger" not in operators(done.model)
    assert "MatMulInteger" in operators(done.model)
    sample = {"input": noise(1, 3, 16, 16)}
    exact = open_session(classifier).run(None, sample)[0]
    found = open_session(done.model).run(None, sample)[0]
    np.testing.assert_allclose(found, exact, atol=0.02 * np.abs(exact).max())


def test_convolutions_on_request_and_what_that_means(classifier):
    done = quantize_dynamic(classifier, PROFILES["x86-vnni"], convolutions=True)
    assert done.layers == {"Conv": 1, "Gemm": 1}
    assert {"ConvInteger", "DynamicQuantizeLinear"} <= set(operators(done.model))
    assert "Measure it beside FP32" in done.notes[0]


def test_a_network_of_convolutions_is_told_what_helps_it(detector, classifier):
    with pytest.raises(QuantizationFailed, match="pass quantize") as caught:
        quantize_dynamic(detector, PROFILES["x86-vnni"])
    assert caught.value.reason == "NOTHING_TO_QUANTIZE"
    kernel = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "more")
    classifier.graph.initializer.append(kernel)
    classifier.graph.node.insert(1, helper.make_node("Conv", ["a", "more"], ["a2"], name="more"))
    classifier.graph.node[2].input[0] = "a2"
    assert "2 convolutions stay in floating point" in quantize_dynamic(classifier, PROFILES["x86"]).notes[0]


def test_an_excluded_node_stays(classifier):
    with pytest.raises(QuantizationFailed):
        quantize_dynamic(classifier, PROFILES["x86-vnni"], exclude=["gemm"])


def test_layers_that_the_quantizer_passes_over_are_not_counted(classifier):
    """A weight on the left of a MatMul stays in floating point, whoever asks for it."""
    weight = numpy_helper.from_array(np.ones((1, 1, 16, 16), np.float32), "left")
    classifier.graph.initializer.append(weight)
    classifier.graph.node.insert(2, helper.make_node("MatMul", ["left", "b"], ["b2"], name="left"))
    classifier.graph.node[3].input[0] = "b2"
    done = quantize_dynamic(classifier, PROFILES["x86-vnni"])
    assert done.layers == {"Gemm": 1}
    with pytest.raises(QuantizationFailed, match="weights that become integers") as caught:
        quantize_dynamic(classifier, PROFILES["x86-vnni"], exclude=["gemm"])
    assert caught.value.reason == "NOTHING_TO_QUANTIZE"


def test_a_recurrent_layer_is_counted_as_what_runs():
    """An LSTM has an integer kernel, a GRU has none: its weights stay as they are, and the record says so."""
    rng = np.random.default_rng(0)

    def network(operator: str, gates: int):
        constants = {"W": (1, gates * 8, 8), "R": (1, gates * 8, 8), "B": (1, gates * 16)}
        graph = helper.make_graph(
            [helper.make_node(operator, ["input", "W", "R", "B"], ["y"], name="recurrent", hidden_size=8)],
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [4, 1, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 1, 1, 8])],
            [
                numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
                for name, shape in constants.items()
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    assert kernel_counts(network("GRU", 3))["float_layers"] == 1
    done = quantize_dynamic(network("LSTM", 4), PROFILES["x86-vnni"])
    assert done.layers == {"LSTM": 1}
    assert (done.kernels["integer_layers"], done.kernels["float_layers"]) == (1, 0)
    with pytest.raises(QuantizationFailed) as caught:
        quantize_dynamic(network("GRU", 3), PROFILES["x86-vnni"])
    assert caught.value.reason == "NOTHING_TO_QUANTIZE"
    feeds = [{"input": rng.normal(size=(4, 1, 8)).astype(np.float32)}]
    with pytest.raises(QuantizationFailed, match="No layer of the graph would be quantized"):
        quantize(network("GRU", 3), feeds, PROFILES["x86-vnni"])
