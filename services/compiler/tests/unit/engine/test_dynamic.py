"""Dynamic quantization: matrices by default, convolutions only when asked, and it says what that costs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.errors import QuantizationFailed
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.scheme import PROFILES


def operators(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_matrices_become_integers_and_convolutions_stay(classifier, noise):
    done = quantize_dynamic(classifier, PROFILES["x86-vnni"])
    assert done.layers == {"Gemm": 1}
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
