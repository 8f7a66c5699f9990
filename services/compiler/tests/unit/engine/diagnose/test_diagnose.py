"""Diagnoses of variants that are slower or worse: the reason is named, and what to try next."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import helper, numpy_helper

from boardwright.compiler.engine.diagnose import diagnose, report_kernels, tensor_errors
from boardwright.compiler.engine.diagnose.errors import steepest_fall
from boardwright.compiler.engine.diagnose.findings import quality_findings, speed_findings, verdict
from boardwright.compiler.engine.diagnose.kernels import Conversion, KernelReport
from boardwright.compiler.engine.diagnose.timing import Latency, summarise
from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.profiling import KernelTime, RuntimeProfile
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES


def profile_of(**milliseconds: float) -> RuntimeProfile:
    kernels = tuple(KernelTime(name, name, taken, ()) for name, taken in milliseconds.items())
    return RuntimeProfile(kernels, sum(milliseconds.values()), 1, 1, 0, b"[]")


def latency(p50: float, threads: int = 1, cv: float = 0.01) -> Latency:
    return Latency(threads, 10, p50, p50 * cv, cv, p50, p50, 0.0)


@pytest.fixture
def samples(noise):
    return [{"input": noise(1, 3, 16, 16)} for _ in range(6)]


def test_integer_layers_and_conversions_are_those_of_the_graph_that_runs(classifier, samples):
    assert report_kernels(classifier).integer_layers == ()
    found = report_kernels(quantize(classifier, samples, PROFILES["x86-vnni"]).model)
    assert len(found.integer_layers) == 2 and found.float_layers == ()
    assert (found.activation_type, found.weight_type) == ("uint8", "int8")
    assert found.splits == ()


def test_dynamic_quantization_of_convolutions_is_named(classifier, samples):
    variant = quantize_dynamic(classifier, PROFILES["x86-vnni"], convolutions=True).model
    found = diagnose(classifier, variant, samples[:2], arithmetic="x86_64 vnni", runs=5)
    assert next(finding.rule for finding in found.findings if finding.about == "speed") == "dynamic"
    assert "DynamicQuantizeLinear run in every pass" in found.verdict
    assert "Quantize statically" in found.next_step
    json.dumps(found.describe(), allow_nan=False)


def test_a_scheme_without_kernels_here_is_named():
    kernels = KernelReport(("a",), ("b", "c", "d"), (), "int8", "int8")
    (finding,) = speed_findings(kernels, profile_of(Conv=3.0), {}, "x86_64 vnni")
    assert finding.rule == "float-layers"
    assert "3 of 4 layers run on floats" in finding.sentence
    assert "int8 activations with int8 weights have no convolution kernel on x86" in finding.sentence
    assert "x86-vnni" in finding.advice
    (arm,) = speed_findings(kernels, profile_of(Conv=3.0), {}, "aarch64")
    assert "do not fit a pattern" in arm.sentence


def test_conversions_that_cost_are_named_with_their_places():
    splits = (
        Conversion("q", "QuantizeLinear", "Conv", "Concat"),
        Conversion("i", "QuantizeLinear", "", "Conv"),
    )
    kernels = KernelReport(("a",), (), splits, "uint8", "int8")
    found = speed_findings(kernels, profile_of(QLinearConv=3.0, QuantizeLinear=1.0), {}, "x86_64 vnni")
    assert found[0].rule == "conversions"
    assert "25% of the time" in found[0].sentence
    assert "1 of them split the graph in its middle (Conv → Concat)" in found[0].sentence
    quiet = speed_findings(kernels, profile_of(QLinearConv=30.0, QuantizeLinear=1.0), {}, "x86_64 vnni")
    assert quiet == []


def test_threads_that_do_not_help_and_noise_are_told():
    kernels = KernelReport(("a",), (), (), "uint8", "int8")
    pairs = {1: (latency(9.0), latency(5.0)), 0: (latency(6.0, 0), latency(8.0, 0, cv=0.5))}
    found = speed_findings(kernels, profile_of(QLinearConv=5.0), pairs, "x86_64 vnni")
    assert [finding.rule for finding in found] == ["noise", "threads"]
    assert verdict(pairs, [], False).startswith("The variant is faster than FP32 here (5.00 against 9.00 ms")
    assert "no VNNI" in speed_findings(kernels, profile_of(QLinearConv=5.0), {}, "x86_64")[0].sentence


def test_the_tensor_where_the_answer_is_lost_is_found(detector, noise):
    images = [{"images": noise(1, 3, 16, 16)} for _ in range(4)]
    good = tensor_errors(detector, quantize(detector, images, PROFILES["x86-vnni"]).model, images)
    assert {error.tensor for error in good} >= {"raw", "chance", "output0"}
    assert min(error.sqnr_db for error in good) > 20
    exact = tensor_errors(detector, detector, images)
    assert {error.sqnr_db for error in exact} == {120.0}
    assert steepest_fall(exact) is None


def test_a_broken_layer_is_where_the_error_jumps(classifier, samples):
    import onnx

    broken = onnx.ModelProto()
    broken.CopyFrom(classifier)
    relu = next(node for node in broken.graph.node if node.name == "relu")
    relu.op_type = "Sigmoid"
    errors = tensor_errors(classifier, broken, samples)
    fall = steepest_fall(errors)
    assert fall is not None and fall[0].node == "relu" and fall[1] > 30
    (finding,) = quality_findings(errors, "", None)
    assert "At Sigmoid 'relu' the error grows by" in finding.sentence
    assert "exclude: [relu]" in finding.advice


def test_infinity_in_both_is_no_error(classifier, samples):
    """Masked positions are minus infinity before and after: their difference is not a number."""
    rows = np.where(np.tri(16, dtype=np.bool_), 0, -np.inf).astype(np.float32)
    classifier.graph.initializer.append(numpy_helper.from_array(rows, "mask"))
    classifier.graph.node.insert(2, helper.make_node("Add", ["b", "mask"], ["masked"], name="masking"))
    classifier.graph.node.insert(3, helper.make_node("Softmax", ["masked"], ["shares"], name="softmax"))
    classifier.graph.node[4].input[0] = "shares"
    found = {error.tensor: error.sqnr_db for error in tensor_errors(classifier, classifier, samples)}
    assert found["masked"] == 120.0


def test_the_cause_and_the_lost_information_come_first(detector, noise):
    images = [{"images": noise(1, 3, 16, 16)} for _ in range(4)]
    blind = quantize(detector, images, PROFILES["x86-vnni"], protect_automatically=False).model
    found = diagnose(
        detector,
        blind,
        images,
        arithmetic="x86_64 vnni",
        runs=5,
        lost="Nothing is detected.",
        cause=lambda: {
            "sentence": "Concat 'join' joins pixels with scores.",
            "advice": "Let protect leave it out.",
        },
    )
    assert [finding.rule for finding in found.findings][:2] == ["cause", "information-lost"]
    assert "its answers differ" in found.verdict


def test_figures_are_those_of_the_runs():
    found = summarise([1.0, 2.0, 3.0, 4.0], 1)
    assert (found.mean_ms, found.p50_ms, found.iqr_ms) == (2.5, 2.5, 1.5)
    assert found.std_ms == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert found.cv == pytest.approx(found.std_ms / 2.5)
    assert 3.8 < found.p95_ms <= 4
