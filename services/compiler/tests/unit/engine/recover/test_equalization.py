"""Equalised networks are the same function; what would not be exact is refused."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.recover.equalization import equalize
from boardwright.compiler.engine.scheme import PROFILES


def outputs(model, images):
    session = open_session(model)
    return np.concatenate([session.run(None, feed)[0] for feed in images])


def test_the_float_network_stays_the_same(images, network):
    prepared = prepare_graph(network("Relu"))
    equalized, found = equalize(prepared, set())
    assert found.pairs == (("conv1", "conv2"), ("conv2", "conv3"))
    expected = outputs(prepared, images)
    np.testing.assert_allclose(
        outputs(equalized, images), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )


def test_one_scale_per_tensor_then_costs_far_less(images, network):
    prepared = prepare_graph(network("Relu"))
    equalized, _ = equalize(prepared, set())
    scheme = PROFILES["vx-delegate"]
    expected = outputs(prepared, images)

    def error(model):
        return float(np.square(outputs(quantize(model, images, scheme).model, images) - expected).mean())

    assert error(equalized) < 0.5 * error(prepared)


def test_channels_come_to_like_ranges(network):
    equalized, _ = equalize(prepare_graph(network("Relu")), set())
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in equalized.graph.initializer}
    first = np.abs(stored["w1"]).reshape(8, -1).max(axis=1)
    second = np.abs(stored["w2"]).reshape(8, -1).max(axis=1)
    np.testing.assert_allclose(first, second, rtol=0.02)


def test_bounds_and_gates_between_two_layers_are_refused_in_a_sentence(network):
    prepared = prepare_graph(network("Clip"))
    _, found = equalize(prepared, set())
    assert found.pairs == (("conv2", "conv3"),)
    assert len(found.refused) == 1
    assert "Clip 'act' stands between them" in found.refused[0]
    _, found = equalize(prepare_graph(network("SiLU")), set())
    assert found.pairs == (("conv2", "conv3"),)


def test_layers_in_floating_point_are_left_alone(network):
    _, found = equalize(prepare_graph(network("Relu")), {"conv2"})
    assert found.pairs == ()
