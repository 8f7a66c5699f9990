"""Quantization: what it protects, what it refuses, and that its results run."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError, QuantizationFailed
from boardwright.compiler.engine.graph.session import kernel_counts, open_session
from boardwright.compiler.engine.observe import CalibrationRecord, TensorRange, observe
from boardwright.compiler.engine.protect import protect
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme, scheme_for


def feeds(name, noise, count=8):
    return [{name: noise(1, 3, 16, 16)} for _ in range(count)]


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_quantized_classifier_answers_nearly_the_same(classifier, noise, profile):
    done = quantize(classifier, feeds("input", noise), PROFILES[profile])
    sample = noise(1, 3, 16, 16)
    before = open_session(classifier).run(None, {"input": sample})[0]
    after = open_session(done.model).run(None, {"input": sample})[0]
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()
    assert done.record.samples == 8
    json.dumps(done.describe(), allow_nan=False)


def test_the_same_input_gives_the_same_bytes(classifier, noise):
    samples = feeds("input", noise)
    first = quantize(classifier, samples, PROFILES["x86-vnni"]).model
    second = quantize(classifier, samples, PROFILES["x86-vnni"]).model
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_decode_that_joins_pixels_with_scores_stays_in_floating_point(detector, noise):
    done = quantize(detector, feeds("images", noise), PROFILES["x86-vnni"])
    join = next(found for found in done.exclusions if found.rule == "join")
    assert {"join", "to_pixels", "box_sigmoid", "score_sigmoid", "split", "reshape"} <= set(join.nodes)
    assert "head" not in join.nodes
    assert "Concat 'join' joins tensors whose magnitudes differ" in join.reason
    sample = noise(1, 3, 16, 16)
    scores = open_session(done.model).run(None, {"images": sample})[0][0, 4:]
    expected = open_session(detector).run(None, {"images": sample})[0][0, 4:]
    assert np.abs(scores - expected).max() < 0.05


def test_without_protection_the_same_decode_goes_blind(detector, noise):
    done = quantize(detector, feeds("images", noise), PROFILES["x86-vnni"], protect_automatically=False)
    scores = open_session(done.model).run(None, {"images": noise(1, 3, 16, 16)})[0][0, 4:]
    assert len(np.unique(scores)) == 1


def test_a_join_in_mid_network_is_protected_with_the_layer_that_would_round_it():
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["a"], name="first"),
        helper.make_node("Mul", ["a", "big"], ["b"], name="scale"),
        helper.make_node("Concat", ["a", "b"], ["c"], name="join", axis=1),
        helper.make_node("Conv", ["c", "k2"], ["y"], name="second"),
    ]
    constants = [
        numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "k"),
        numpy_helper.from_array(np.array(100, np.float32), "big"),
        numpy_helper.from_array(np.ones((2, 4, 1, 1), np.float32), "k2"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
        constants,
    )
    ranges = {"a": TensorRange(0, 1), "b": TensorRange(0, 100), "c": TensorRange(0, 100)}
    found = protect(helper.make_model(graph), ranges)
    assert [set(exclusion.nodes) for exclusion in found] == [{"join", "scale", "second"}]


def test_narrow_joins_are_quantized(detector):
    ranges = {"pixels": TensorRange(0, 10), "chance": TensorRange(0, 1)}
    assert all(found.rule == "tail" for found in protect(detector, ranges))


def test_memory_and_results_do_not_depend_on_how_ranges_were_gathered(classifier, noise):
    samples = feeds("input", noise, 6)
    whole = observe(classifier, samples)
    parts = [observe(classifier, samples[:2]), observe(classifier, samples[2:])]
    for name, found in whole.ranges.items():
        assert parts[0].ranges[name].merge(parts[1].ranges[name]) == found
    assert CalibrationRecord.from_json(json.loads(whole.to_bytes())) == whole


def test_ranges_are_those_of_the_activations(classifier, noise):
    sample = noise(1, 3, 16, 16)
    found = observe(classifier, [{"input": sample}]).ranges
    assert found["input"] == TensorRange(float(sample.min()), float(sample.max()))
    assert set(found) == {"input", "a", "b", "c", "d", "logits"}


def test_feeds_are_read_one_at_a_time(classifier, noise):
    alive: list[int] = []

    def one_by_one():
        for number in range(5):
            assert len(alive) == number
            yield {"input": noise(1, 3, 16, 16)}

    observe(classifier, one_by_one(), on_sample=alive.append)
    assert alive == [1, 2, 3, 4, 5]


def test_an_old_opset_is_raised_first(classifier, noise):
    classifier.opset_import[0].version = 11  # its operators are the same there
    done = quantize(classifier, feeds("input", noise), PROFILES["x86-vnni"])
    assert max(entry.version for entry in done.model.opset_import if not entry.domain) >= 13


def test_what_cannot_be_quantized_is_told(classifier, noise):
    with pytest.raises(DatasetUnfit, match="no sample to calibrate with"):
        quantize(classifier, [], PROFILES["x86-vnni"])
    done = quantize(classifier, feeds("input", noise), PROFILES["x86-vnni"])
    with pytest.raises(QuantizationFailed, match="already"):
        quantize(done.model, feeds("input", noise), PROFILES["x86-vnni"])
    with pytest.raises(QuantizationFailed, match=r"no node 'gem' to leave out\. Did you mean 'gemm'"):
        quantize(classifier, feeds("input", noise), PROFILES["x86-vnni"], exclude=["gem"])


def test_a_graph_without_layers_has_nothing_to_quantize(noise):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 16, 16])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(QuantizationFailed, match="nothing to quantize"):
        quantize(model, feeds("x", noise), PROFILES["x86-vnni"])


def test_nan_activations_stop_the_calibration(classifier, noise):
    bad = np.full((1, 3, 16, 16), np.nan, np.float32)
    with pytest.raises(EngineError, match="Check the weights for NaN"):
        quantize(classifier, [*feeds("input", noise, 2), {"input": bad}], PROFILES["x86-vnni"])


def test_constant_activations_do_not_break_the_scales(classifier):
    zeros = [{"input": np.zeros((1, 3, 16, 16), np.float32)}] * 3
    done = quantize(classifier, zeros, PROFILES["x86-vnni"])
    onnx.checker.check_model(done.model)
    assert np.isfinite(open_session(done.model).run(None, {"input": zeros[0]["input"]})[0]).all()


def test_kernels_are_counted_in_the_graph_that_really_runs(classifier, noise):
    assert kernel_counts(classifier) == {"integer_layers": 0, "float_layers": 2, "conversions": 0}
    done = quantize(classifier, feeds("input", noise), PROFILES["x86-vnni"])
    assert done.kernels["integer_layers"] == 2


def test_schemes_come_from_profiles():
    assert scheme_for("arm").label == "S8S8 per-channel"
    assert scheme_for({"activation_type": "int8", "activation_symmetric": True}) == QuantizationScheme(
        activation_type="int8", activation_symmetric=True
    )
    with pytest.raises(
        QuantizationFailed, match="the profiles are arm, tensorrt, tidl-mma1, vx-delegate, x86, x86-vnni"
    ):
        scheme_for("riscv")
    with pytest.raises(QuantizationFailed, match="has no 'bits'"):
        scheme_for({"bits": 4})
    with pytest.raises(QuantizationFailed, match="choose one of"):
        scheme_for({"weight_type": "int4"})


def test_granularity_overrides_the_profile_only_when_asked():
    from boardwright.compiler.engine.scheme import with_granularity

    for scheme in PROFILES.values():
        assert with_granularity(scheme, "profile") == scheme
        assert with_granularity(scheme, "per-tensor").label.endswith("per-tensor")
        assert with_granularity(scheme, "per-channel").label.endswith("per-channel")
