"""The cause of a collapse is named: the node, the reason, and what to do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.protect import find_cause
from boardwright.compiler.engine.scheme import PROFILES


@pytest.mark.parametrize("head", ["anchored", "expected", "exponential", "rows of answers"])
def test_the_join_of_pixels_and_scores_is_the_cause(detector_with, images, head):
    cause = find_cause(detector_with(head), images[:4])
    assert cause.collapsed or cause.protected_db > cause.plain_db + 20
    assert cause.rule == "join"
    assert cause.node in cause.sentence
    assert "joins tensors whose magnitudes differ" in cause.sentence
    assert cause.plain_db < 10 < 20 < cause.protected_db
    assert "passes protect and quantize" in cause.advice
    json.dumps(cause.to_json(), allow_nan=False)


def test_a_healthy_model_has_no_cause(classifier, noise):
    cause = find_cause(classifier, [{"input": noise(1, 3, 16, 16)} for _ in range(4)])
    assert not cause.collapsed
    assert (cause.node, cause.exclusions) == ("", ())
    assert "Nothing collapses" in cause.sentence


def spread_channels(builder, share):
    """A network whose first layer has weights of a thousandth in a share of its channels."""
    rng = np.random.default_rng(0)
    graph = builder()
    weight = rng.normal(size=(20, 3, 3, 3)).astype(np.float32)
    small = np.arange(20) < share * 20
    weight[small] *= 1e-3
    undo = np.zeros((20, 20, 1, 1), np.float32)
    undo[np.arange(20), np.arange(20), 0, 0] = np.where(small, 1e3, 1e-3)
    tensor = graph.conv("images", weight)
    tensor = graph.conv(tensor, undo)
    output = graph.conv(tensor, rng.normal(size=(4, 20, 1, 1)).astype(np.float32))
    return graph.model({"images": [1, 3, 32, 32]}, {output: TensorProto.FLOAT})


def test_where_no_rule_explains_it_the_worst_unit_is_named_with_what_is_unusual(builder, images):
    cause = find_cause(spread_channels(builder, 0.2), images[:4], scheme=PROFILES["vx-delegate"])
    assert cause.collapsed
    assert cause.rule == "sensitivity"
    assert "channels drown in the rounding" in cause.sentence or "256 steps" in cause.sentence
    assert "exclude" in cause.advice


def test_a_record_saves_observing(detector_with, images):
    model = detector_with("anchored")
    record = observe(prepare_graph(model), images[:4])
    assert find_cause(model, images[:4], record=record).node == find_cause(model, images[:4]).node
    with pytest.raises(DatasetUnfit, match="no sample to look for the cause with"):
        find_cause(model, [])
