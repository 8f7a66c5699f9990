"""Ablations: one row per experiment, changes against one baseline, interactions named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from boardwright.compiler.engine.ablate import Experiment, ablate
from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES


@pytest.fixture
def experiments(classifier, noise):
    samples = [{"input": noise(1, 3, 16, 16)} for _ in range(4)]
    static = quantize(classifier, samples, PROFILES["x86-vnni"]).model
    dynamic = quantize_dynamic(classifier, PROFILES["x86-vnni"]).model
    baseline = Experiment("baseline", classifier, (), {"top1": 0.90, "top5": 1.0})
    return (
        baseline,
        [
            Experiment("int8", static, ("quantize",), {"top1": 0.89}, {"top1_agreement": 0.97}),
            Experiment("packed", dynamic, ("pack",), {"top1": 0.88}),
            Experiment("both", static, ("quantize", "pack"), {"top1": 0.83}),
        ],
        samples[0],
    )


def test_each_experiment_has_its_row_beside_the_baseline(experiments):
    baseline, others, feed = experiments
    done = []
    found = ablate(baseline, others, feed, runs=5, on_experiment=done.append)
    assert [row.name for row in found.rows] == ["baseline", "int8", "packed", "both"]
    assert found.metric == "top1"
    first, static, *_ = found.rows
    assert first.factors == () and static.factors == ("quantize",)
    assert static.parity == {"top1_agreement": 0.97}
    assert first.parameters == 81 + 9 + 3
    assert first.weight_bytes == 4 * first.parameters
    assert first.macs == 3 * 16 * 16 * 27 + 9
    assert all(row.latency.p50_ms > 0 for row in found.rows)
    assert done == [1, 2, 3, 4]
    json.dumps(found.describe(), allow_nan=False)


def test_the_baseline_is_as_fast_as_itself(experiments):
    baseline, others, feed = experiments
    assert ablate(baseline, others[:1], feed, runs=5).rows[0].ratio == 1.0


def test_factors_that_hurt_each_other_are_named(experiments):
    baseline, others, feed = experiments
    found = ablate(baseline, others, feed, runs=5)
    assert found.interactions[0] == (
        "quantize and pack hurt each other: -7.00 points together, -3.00 one by one."
    )
    assert "if their gains multiplied" in found.interactions[1]


def test_factors_that_add_up_or_help_are_told_so(experiments):
    baseline, (static, packed, both), feed = experiments
    for together, words in ((0.87, "add up"), (0.885, "help each other")):
        joint = Experiment(both.name, both.model, both.factors, {"top1": together})
        assert words in ablate(baseline, [static, packed, joint], feed, runs=5).interactions[0]
    assert ablate(baseline, [static, both], feed, runs=5).interactions == ()


def test_figures_taken_otherwise_name_no_interaction_and_are_told(experiments):
    baseline, (static, packed, both), feed = experiments
    base, one, joint = (replace(found, judged="200 samples") for found in (baseline, static, both))
    merged = replace(packed, judged="200 samples, 4 views of each merged")
    found = ablate(base, [one, merged, joint], feed, runs=5)
    assert found.interactions == ()
    (note,) = found.notes
    assert note.startswith("packed was judged on 200 samples, 4 views of each merged, the baseline on 200 ")


def test_without_a_metric_there_is_nothing_to_compare(experiments):
    baseline, others, feed = experiments
    with pytest.raises(EngineError) as caught:
        ablate(Experiment("baseline", baseline.model), others, feed)
    assert caught.value.reason == "METRIC_MISSING"
