"""Zeros among weights: as many as asked for, where asked for, and no promise of speed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import numpy_helper

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.pruning import sparsify


def weights(model):
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1
    }


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_the_smallest_weights_become_zero_and_the_file_compresses(digits, scope):
    done = sparsify(digits.model, 0.7, scope=scope)
    assert done.sparsity == pytest.approx(0.7, abs=0.01)
    assert done.size_bytes == pytest.approx(digits.model.ByteSize(), rel=0.01)
    assert done.compressed_bytes < 0.6 * done.compressed_before_bytes
    assert "runs as fast as before" in done.notes[0]
    json.dumps(done.describe(), allow_nan=False)
    spread = max(done.layers.values()) - min(done.layers.values())
    assert (spread < 0.05) == (scope == "uniform")


def test_two_of_every_four_weights_stay(digits):
    done = sparsify(digits.model, 0.5, pattern="2:4")
    before = weights(digits.model)
    for name, value in weights(done.model).items():
        if value.shape[1] % 4:
            np.testing.assert_array_equal(value, before[name])
            continue
        kept = np.moveaxis(value, 1, -1).reshape(-1, 4)
        assert ((kept != 0).sum(axis=1) <= 2).all()
        old = np.moveaxis(before[name], 1, -1).reshape(-1, 4)
        assert (np.abs(kept).max(axis=1) == np.abs(old).max(axis=1)).all()
    assert any("TensorRT" in note for note in done.notes)


@pytest.mark.parametrize("options", [{"pattern": "4:2"}, {"pattern": "half"}, {"scope": "sensitivity"}])
def test_what_makes_no_sense_is_refused(digits, options):
    with pytest.raises(EngineError) as caught:
        sparsify(digits.model, 0.5, **options)
    assert caught.value.reason == "PRUNING_OPTIONS_UNFIT"
