"""Sensitivity: near the naive sweep's answer at a fraction of its runs; units, scales and ratios."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import TensorRange, observe
from boardwright.compiler.engine.protect import (
    excluded_names,
    measure_sensitivity,
    measured_exclusions,
    protect,
)
from boardwright.compiler.engine.protect.measured import candidate_groups
from boardwright.compiler.engine.protect.noise import noisy_units, scale_of
from boardwright.compiler.engine.protect.sensitivity import OutputNoise, answers
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.quantize import insert_quantization
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme
from boardwright.compiler.engine.sqnr import decibels, noise_ratio


@pytest.fixture
def deep(builder):
    """Twelve layers over (1, 3, 32, 32) images, every third of them with coarse weights."""
    rng = np.random.default_rng(0)
    graph = builder()
    tensor, width = "images", 3
    for number in range(12):
        weight = rng.normal(size=(8, width, 3, 3)).astype(np.float32) / np.float32((width * 9) ** 0.5)
        if number % 3 == 0:
            weight[0, 0, 0, 0] = 4.0  # one large weight makes the steps of all others coarse
        tensor = graph.silu(graph.conv(tensor, 1.7 * weight, stride=2 if number in (0, 6) else 1))
        width = 8
    output = graph.conv(tensor, rng.normal(size=(4, 8, 1, 1)).astype(np.float32))
    return graph.model({"images": [1, 3, 32, 32]}, {output: TensorProto.FLOAT})


def subject_of(model, feeds, scheme=None):
    prepared = prepare_graph(model)
    record = observe(prepared, feeds)
    return Subject(prepared, record.ranges, scheme), record


def rank_correlation(first, second):
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_ranks_agree_with_a_naive_sweep_by_the_real_quantizer(deep, images):
    scheme = QuantizationScheme(per_channel=False)
    subject, record = subject_of(deep, images[:4], scheme)
    found = measure_sensitivity(subject, images[:2], measured_units=16)
    layers = [unit for unit in found.units if unit.operator == "Conv"]
    everything = {node.name for node in subject.nodes}
    wanted = [open_session(subject.model).run(None, feed) for feed in images[:2]]
    sweep = []
    for unit in layers:
        alone = open_session(insert_quantization(subject.model, record, scheme, everything - {unit.node}))
        ratios = [
            noise_ratio(alone.run(None, feed), exact) for feed, exact in zip(images[:2], wanted, strict=True)
        ]
        sweep.append(float(np.mean(ratios)))
    assert rank_correlation([-unit.sqnr_db for unit in layers], sweep) > 0.7
    assert found.passes < len(found.units) * 2


def test_a_measured_unit_is_what_the_run_said(deep, images):
    subject, _ = subject_of(deep, images)
    found = measure_sensitivity(subject, images[:2], measured_units=8)
    units = noisy_units(subject)
    noise = OutputNoise(subject, units, images[1])
    for number, unit in enumerate(found.units):
        if unit.measured:
            assert unit.sqnr_db == pytest.approx(decibels(noise.alone(number)), abs=0.05)
    assert sorted(unit.rank for unit in found.units) == list(range(1, len(units) + 1))
    assert [unit.rank for unit in found.worst(3)] == [1, 2, 3]
    json.dumps(found.to_json(), allow_nan=False)
    assert found.describe()["measured_units"] == 8


def test_all_units_together_make_the_noise_of_the_quantized_model(detector_with, images):
    model = detector_with("anchored")
    subject, record = subject_of(model, images)
    excluded = excluded_names(protect(subject.model, record.ranges))
    found = measure_sensitivity(subject, images, excluded=excluded)
    quantized = insert_quantization(subject.model, record, QuantizationScheme(), excluded)
    feed = images[-1]
    real = noise_ratio(open_session(quantized).run(None, feed), open_session(subject.model).run(None, feed))
    assert found.together_db == pytest.approx(decibels(real), abs=2)


def test_excluded_nodes_are_no_units_and_an_activation_belongs_to_its_layer(detector_with, images):
    subject, _ = subject_of(detector_with("anchored"), images)
    units = noisy_units(subject)
    relu = next(index for index, node in enumerate(subject.nodes) if node.op_type == "Relu")
    assert sum(unit.fused == relu for unit in units) == 1
    assert not {"Relu", "Reshape", "Transpose", "Split"} & {
        subject.nodes[unit.node].op_type for unit in units
    }
    left = noisy_units(subject, {units[0].name})
    assert [unit.name for unit in left] == [unit.name for unit in units[1:]]


def test_sorted_answers_are_judged_before_they_are_sorted(builder, images):
    graph = builder()
    rng = np.random.default_rng(0)
    raw = graph.conv("images", rng.normal(size=(1, 3, 3, 3)).astype(np.float32))
    flat = graph.reshape(raw, 1, 1024)
    values, _ = graph.add("TopK", flat, graph.constant([5], np.int64), outputs=2, axis=1)
    subject, _ = subject_of(graph.model({"images": [1, 3, 32, 32]}, {values: TensorProto.FLOAT}), images)
    assert answers(subject) == [flat]


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_scales_are_those_of_the_quantizer(classifier, noise, profile):
    from onnx import numpy_helper

    scheme = PROFILES[profile]
    feeds = [{"input": noise(1, 3, 16, 16) - 0.3} for _ in range(3)]
    prepared = prepare_graph(classifier)
    record = observe(prepared, feeds)
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in insert_quantization(prepared, record, scheme, set()).graph.initializer
    }
    scale, zero = scale_of(record.ranges["input"], scheme)
    assert float(stored["input_scale"]) == pytest.approx(float(scale), rel=1e-5)
    assert int(stored["input_zero_point"]) == pytest.approx(int(zero), abs=1)


def test_a_constant_tensor_has_a_scale():
    scale, _ = scale_of(TensorRange(0, 0), QuantizationScheme())
    assert scale > 0


def test_no_samples_no_sensitivity(classifier, noise):
    subject, _ = subject_of(classifier, [{"input": noise(1, 3, 16, 16)}])
    with pytest.raises(DatasetUnfit, match="no sample to measure sensitivity with"):
        measure_sensitivity(subject, [])


@pytest.mark.parametrize("coarse", [0, 2])
def test_a_first_layer_stays_in_float_only_where_that_pays(builder, images, coarse):
    rng = np.random.default_rng(1)
    graph = builder()
    tensor, width = "images", 3
    for number in range(4):
        weight = rng.normal(size=(48, width, 3, 3)).astype(np.float32) / np.float32((width * 9) ** 0.5)
        if number == coarse:
            weight[:, 0] += 100  # on a channel without signal: the others have few steps left
        bias = np.where(np.arange(48) == 0, -1e3, 0)  # channel 0 is never active
        tensor = graph.add("Relu", graph.conv(tensor, weight, bias, stride=2 if number == 0 else 1))
        width = 48
    output = graph.conv(tensor, rng.normal(size=(4, 48, 1, 1)).astype(np.float32))
    dark = [{"images": feed["images"] * np.array([0, 1, 1], np.float32)[:, None, None]} for feed in images]
    subject, record = subject_of(graph.model({"images": [1, 3, 32, 32]}, {output: TensorProto.FLOAT}), dark)
    assert candidate_groups(subject).keys() == {"first", "last"}
    blank = {"images": np.zeros_like(images[0]["images"])}  # on which nothing can be told
    found = {exclusion.rule: exclusion for exclusion in measured_exclusions(subject, [blank, *dark], record)}
    assert found.keys() == ({"first"} if coarse == 0 else set())
    assert coarse or "the outputs' noise falls by" in found["first"].reason


def test_the_layers_of_a_squeeze_excite_gate_are_found(builder, images):
    rng = np.random.default_rng(2)
    graph = builder()

    def weight(outputs, inputs):
        return rng.normal(size=(outputs, inputs, 1, 1)).astype(np.float32)

    features = graph.conv("images", weight(8, 3))
    pooled = graph.add("GlobalAveragePool", features)
    gate = graph.conv(graph.add("Relu", graph.conv(pooled, weight(2, 8))), weight(8, 2))
    weighed = graph.add("Mul", features, graph.add("Sigmoid", gate))
    output = graph.conv(weighed, weight(4, 8))
    subject, _ = subject_of(graph.model({"images": [1, 3, 32, 32]}, {output: TensorProto.FLOAT}), images)
    found = candidate_groups(subject)["gate"]
    assert [subject.nodes[index].op_type for index in sorted(found)] == ["Conv", "Relu", "Conv", "Sigmoid"]
