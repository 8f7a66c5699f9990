"""Budgets: the fewest layers that keep a loss, what cannot be kept, and why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto

from boardwright.compiler.engine.errors import EngineError, QuantizationFailed
from boardwright.compiler.engine.evaluate import Sample
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.observe import CalibrationRecord, observe
from boardwright.compiler.engine.protect import (
    Budget,
    ProtectionOptions,
    TaskMetric,
    excluded_names,
    fit_budget,
    measure_sensitivity,
    protect_model,
    read_exclusions,
)
from boardwright.compiler.engine.protect.latency import LayerTimes, latency_model
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.model import InputSpec, OutputSpec

SCHEME = PROFILES["x86-vnni"]


@pytest.fixture
def network(builder):
    rng = np.random.default_rng(0)
    graph = builder()
    tensor, width = "images", 3
    for _ in range(8):
        weight = rng.normal(size=(6, width, 3, 3)).astype(np.float32) / np.float32((width * 5) ** 0.5)
        tensor, width = graph.add("Relu", graph.conv(tensor, weight)), 6
    output = graph.conv(tensor, rng.normal(size=(4, 6, 1, 1)).astype(np.float32))
    return graph.model({"images": [1, 3, 32, 32]}, {output: TensorProto.FLOAT})


@pytest.fixture
def subject(network, images):
    prepared = prepare_graph(network)
    return Subject(prepared, observe(prepared, images).ranges, SCHEME)


def fit(subject, images, budget, drop, times=None, **options):
    """Fit with a loss that is a function of the layers in float."""
    layers = set(subject.names(subject.layers))
    return fit_budget(
        subject,
        measure_sensitivity(subject, images[:2]),
        (),
        budget,
        latency_model(subject, times),
        build=lambda excluded: excluded & layers,
        drop=lambda kept: drop(len(kept)),
        metric="top-1",
        **options,
    )


def times(subject, float_ms=2.0, integer_ms=1.0):
    names = subject.names(subject.layers)
    return LayerTimes(dict.fromkeys(names, float_ms), dict.fromkeys(names, integer_ms), "on a board")


def test_nothing_is_kept_where_nothing_is_needed(subject, images):
    found = fit(subject, images, Budget(max_drop=0.5), lambda kept: 0.3)
    assert (found.reached, found.exclusion, len(found.trials)) == (True, None, 1)
    assert "no layer is needed" in found.explanation


@pytest.mark.parametrize("needed", [1, 3, 5, 8])
def test_the_fewest_layers_that_suffice_are_kept(subject, images, needed):
    found = fit(subject, images, Budget(max_drop=0.5), lambda kept: 0.4 if kept >= needed else 2.0)
    assert found.reached
    assert sum(name in subject.names(subject.layers) for name in found.exclusion.nodes) == needed
    assert f"{needed} sensitive layers stay in floating point" in found.explanation
    assert len(found.trials) <= 8


def test_what_cannot_be_reached_is_explained(subject, images):
    found = fit(subject, images, Budget(max_drop=0.5), lambda kept: 3.0 - 0.1 * kept)
    assert not found.reached
    assert (
        "0.5 points of top-1 were not reached: the best measured is 2.20 with 8 layers" in found.explanation
    )
    assert "Of 9 layers no more can stay there" in found.explanation
    kept = {name for name in found.exclusion.nodes if name in subject.names(subject.layers)}
    assert len(kept) == 8, "a model that is not quantized is no answer"


def test_a_latency_bounds_what_may_be_kept(subject, images):
    budget = Budget(max_drop=0.5, max_latency_ms=12.5)
    found = fit(subject, images, budget, lambda kept: 3.0 - 0.5 * kept, times(subject))
    assert not found.reached
    assert max(trial.blocks for trial in found.trials) == 3  # 9 layers on integers take 9 ms
    assert "6 further layers would exceed 12.5 ms" in found.explanation
    assert all(trial.cost <= 12.5 for trial in found.trials)


def test_a_latency_below_all_integers_is_refused_at_once(subject, images):
    found = fit(subject, images, Budget(max_latency_ms=5), lambda kept: 0, times(subject))
    assert not found.reached and not found.trials
    assert "takes 9 ms by per-layer times measured on a board" in found.explanation


def test_without_times_milliseconds_are_not_made_up(subject, images):
    found = fit(subject, images, Budget(max_latency_ms=5), lambda kept: 0)
    assert not found.reached
    assert found.latency_unit == "share of FP32"
    assert "give per-layer times" in found.explanation


def test_half_measured_times_say_what_is_assumed(subject):
    model = latency_model(subject, LayerTimes({"a": 4.0}, source="on a board"))
    assert model.total(set()) == 2
    assert model.total({"a"}) == 4
    assert "assumed" in model.basis


def classifying(classifier, noise, labelled):
    spec = InputSpec(name="input", height=16, width=16, resize="stretch")
    images = [(255 * noise(16, 16, 3)).astype(np.uint8) for _ in range(12)]
    labels = [int(image.mean(axis=(0, 1)).argmax()) for image in images]
    samples = [
        Sample(str(number), image, class_index=label if labelled else None)
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    head = OutputSpec(task="classification", head="logits", num_classes=3)
    feeds = [{"input": image.transpose(2, 0, 1)[None].astype(np.float32) / 255} for image in images]
    return feeds, lambda: TaskMetric(classifier, lambda: samples, spec, head)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_budget_is_verified_on_samples_with_or_without_labels(classifier, noise, labelled):
    feeds, metric = classifying(classifier, noise, labelled)
    assert metric().reference == (metric().measure(classifier) if labelled else 100)
    options = ProtectionOptions(budget=Budget(max_drop=10))
    found = protect_model(classifier, lambda: feeds, SCHEME, options, metric=metric)
    assert found.budget is not None and found.budget.reached
    assert ("own answers" in found.budget.metric) is not labelled
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read_exclusions(values) == found.exclusions
    assert {entry["node"] for entry in values["sensitivity"]} >= {"conv", "gemm"}


def test_the_choice_is_judged_on_samples_that_it_was_not_made_by(classifier, noise):
    feeds, metric = classifying(classifier, noise, True)
    options = ProtectionOptions(budget=Budget(max_drop=10))
    alone = protect_model(classifier, lambda: feeds, SCHEME, options, metric=metric).budget
    assert alone is not None and alone.verified is None and alone.kept_on_others

    class Unlucky:
        name = "top-1"

        def drop(self, model):
            return 12.5

    found = protect_model(classifier, lambda: feeds, SCHEME, options, metric=metric, verify=Unlucky).budget
    assert found is not None and found.reached and not found.kept_on_others
    assert found.to_json()["verified"] == {"metric": "top-1", "drop": 12.5}
    assert found.verified is not None
    assert found.verified.told(10) == "On other samples it loses 12.50 points of top-1, more than 10."


def test_the_most_sensitive_layers_lose_points_alone(classifier, noise):
    feeds, metric = classifying(classifier, noise, True)
    options = ProtectionOptions(metric_layers=1)
    found = protect_model(classifier, lambda: feeds, SCHEME, options, metric=metric).sensitivity
    assert found is not None and found.describe()["metric"] == "top-1"
    layers = [unit for unit in found.worst(99) if unit.node in ("conv", "gemm")]
    assert layers[0].metric_drop is not None and abs(layers[0].metric_drop) <= 100
    assert [unit for unit in found.units if unit.metric_drop is not None] == layers[:1]
    with pytest.raises(EngineError, match="metric_layers"):
        protect_model(classifier, lambda: feeds, SCHEME, options)


def test_exclusions_and_records_must_fit_the_graph(classifier, noise):
    feeds, _ = classifying(classifier, noise, True)
    options = ProtectionOptions(exclude=("gemm",), sensitivity=False)
    found = protect_model(classifier, lambda: feeds, SCHEME, options)
    assert "gemm" in excluded_names(found.exclusions)
    with pytest.raises(QuantizationFailed, match="Did you mean 'gemm'"):
        protect_model(classifier, lambda: feeds, SCHEME, ProtectionOptions(exclude=("gem",)))
    with pytest.raises(EngineError, match="made from another graph"):
        protect_model(classifier, lambda: feeds, SCHEME, record=CalibrationRecord("min-max", 1, {}))
    with pytest.raises(EngineError, match="Did you mean 'join'"):
        ProtectionOptions(rules=("joins",))
    with pytest.raises(EngineError, match="A loss can only be bounded where it can be measured"):
        protect_model(classifier, lambda: feeds, SCHEME, ProtectionOptions(budget=Budget(max_drop=1)))
    with pytest.raises(EngineError, match="protect again"):
        read_exclusions({"schema": "other"})
