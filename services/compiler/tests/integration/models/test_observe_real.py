"""A real detector, fused and laid out by the runtime: every tensor is still known by its own name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import float_activations, observe

MODEL = Path(__file__).parents[6] / "shared" / "data" / "models" / "yolov5n.onnx"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not MODEL.exists(), reason="needs ../shared/data with real models beside the checkout"
    ),
]


def test_ranges_of_every_tensor_are_those_of_its_values():
    model = prepare_graph(onnx.load(MODEL))
    image = np.random.default_rng(0).random((1, 3, 640, 640), dtype=np.float32)
    record = observe(model, [{"images": image}], threads=1)
    names = [name for name in float_activations(model) if name != "images"]
    assert set(record.ranges) == {"images", *names}
    assert record.sources().keys() == {"measured", "derived", "joined", "same"}
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    values = open_session(model, threads=1, level="basic").run(names, {"images": image})
    for name, taken in zip(names, values, strict=True):
        found, bound = record.ranges[name], 1e-4 * float(np.abs(taken).max())
        assert found.low == pytest.approx(taken.min(), abs=bound), name
        assert found.high == pytest.approx(taken.max(), abs=bound), name
