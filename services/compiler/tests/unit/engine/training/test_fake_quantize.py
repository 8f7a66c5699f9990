"""Training rounds what the device rounds: a rounded network answers as its quantized graph does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.pruning import sparsify
from boardwright.compiler.engine.quantize import insert_quantization
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme
from boardwright.compiler.engine.training.fake_quantize import FakeQuantizeWeight, RoundedNetwork
from boardwright.compiler.engine.training.network import GraphNetwork, to_onnx
from boardwright.compiler.engine.training.quantization_places import find_places
from boardwright.compiler.engine.training.zeros import KeptZeros

SCHEMES = {
    "x86": PROFILES["x86"],
    "x86 per-tensor": replace(PROFILES["x86"], per_channel=False),
    "arm": PROFILES["arm"],
    "tensorrt": PROFILES["tensorrt"],
    "vx-delegate": PROFILES["vx-delegate"],
    "power of two": PROFILES["tidl-mma1"],
    "power of two per-channel": replace(PROFILES["tidl-mma1"], per_channel=True),
    "symmetric per-tensor": replace(PROFILES["vx-delegate"], activation_symmetric=True),
    "asymmetric weights": QuantizationScheme(weight_type="uint8", weight_symmetric=False, per_channel=False),
}


@pytest.fixture(scope="session")
def observed(digits):
    """The prepared graph, its record, and inputs."""
    prepared = prepare_graph(digits.model)
    feeds = list(digits.feeds(60))
    return prepared, observe(prepared, feeds, threads=1), np.concatenate([feed["input"] for feed in feeds])


def rounded(prepared, record, scheme, ranges="learned", excluded=frozenset()):
    network = GraphNetwork(prepared).eval()
    quantized = insert_quantization(prepared, record, scheme, set(excluded), spread=False)
    places = find_places(quantized, prepared)
    return network, RoundedNetwork(network, places, scheme, ranges), quantized


def answers(model, images):
    session = open_session(model, threads=1)
    return np.concatenate([session.run(None, {"input": image[None]})[0] for image in images])


@pytest.mark.parametrize("name", sorted(set(SCHEMES) - {"x86"}))  # that trains on seven bits, see below
def test_a_rounded_network_answers_as_the_quantized_graph(name, observed):
    prepared, record, images = observed
    network, _, quantized = rounded(prepared, record, SCHEMES[name])
    with torch.no_grad():
        ours = network(torch.from_numpy(images))[0].numpy()
    theirs, exact = answers(quantized, images), answers(prepared, images)
    assert np.abs(ours - theirs).mean() < 0.05 * np.abs(exact - theirs).mean()


def test_what_is_excluded_is_not_rounded(observed):
    prepared, record, images = observed
    excluded = {node.name for node in prepared.graph.node}
    kept = next(node.name for node in prepared.graph.node if node.op_type == "Gemm")
    network, _, quantized = rounded(prepared, record, PROFILES["arm"], excluded=excluded - {kept})
    assert len([layer for layer in network.layers.values() if hasattr(layer, "parametrizations")]) == 1
    with torch.no_grad():
        ours = network(torch.from_numpy(images))[0].numpy()
    np.testing.assert_allclose(ours, answers(quantized, images), atol=0.2)


@pytest.mark.parametrize(
    "name",
    [
        "x86", "arm", "tensorrt", "vx-delegate", "symmetric per-tensor", "power of two",
        "power of two per-channel",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ranges", ["learned", "moving-average"])
def test_trained_scales_are_those_of_the_quantized_graph(name, ranges, observed):
    """Scales moved by training come out of the quantizer again: nothing is lost between the two."""
    prepared, record, images = observed
    scheme = SCHEMES[name]
    network, rounding, _ = rounded(prepared, record, scheme, ranges)
    generator = torch.manual_seed(0)
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if key.endswith("log_factor"):
                parameter += 0.3 * (torch.rand(parameter.shape, generator=generator) - 0.7)
    network.train()(torch.from_numpy(images))
    network.eval()
    with torch.no_grad():
        ours = network(torch.from_numpy(images))[0].numpy()
    trained_record = rounding.finish(record, record.samples)
    assert trained_record.method == "trained"
    trained = to_onnx(network)
    quantized = insert_quantization(trained, trained_record, scheme, set(), spread=False)
    theirs, exact = answers(quantized, images), answers(trained, images)
    assert np.abs(ours - theirs).mean() < 0.05 * np.abs(exact - theirs).mean()


def test_gradients_reach_weights_scales_and_clips(observed):
    prepared, record, images = observed
    network, rounding, _ = rounded(prepared, record, PROFILES["vx-delegate"])
    network.train()(torch.from_numpy(images))[0].square().mean().backward()
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    scales = [name for name in trained if name.endswith("log_factor")]
    assert len(scales) == len(rounding.activations) + 6
    assert all(value.grad is not None for value in trained.values())
    assert sum(bool(trained[name].grad.abs().max() > 0) for name in scales) >= len(scales) - 1
    assert {group["rate_factor"] for group in rounding.groups(3.0)} == {1.0, 3.0}


def test_learnt_clips_leave_outliers_out():
    weight = torch.tensor([[0.1, -0.2, 0.15, 8.0]])
    fake = FakeQuantizeWeight(weight, None, PROFILES["vx-delegate"], learned=True).requires_grad_(False)
    share = fake.right_inverse(weight)
    assert float((fake(share) - weight)[0, :3].abs().max()) > 0.02
    fake.log_factor.fill_(float(np.log(0.2 / 8.0)))
    assert float((fake(share) - weight)[0, :3].abs().max()) < 0.001
    assert float(fake(share)[0, 3]) == pytest.approx(0.2)
    assert float(fake.clipped(share)[0, 3]) == pytest.approx(0.2)


def test_what_is_trained_are_shares_of_a_channels_size():
    weight = torch.tensor([[1000.0, -500.0], [0.001, 0.002], [0.0, 0.0]])
    fake = FakeQuantizeWeight(weight, 0, PROFILES["arm"], learned=True)
    share = fake.right_inverse(weight)
    assert float(share.abs().max()) < 2
    torch.testing.assert_close(fake(share).detach()[0], weight[0], rtol=0.01, atol=0)


def test_places_name_the_graphs_tensors_and_skip_what_only_moves(observed):
    prepared, record, _ = observed
    quantized = insert_quantization(prepared, record, PROFILES["x86"], set(), spread=False)
    places = find_places(quantized, prepared)
    weights = {tensor.name for tensor in prepared.graph.initializer if len(tensor.dims) > 1}
    assert {place.tensor for place in places.weights} == weights
    assert {place.axis for place in places.weights} == {0}
    assert len(places.biases) == len(weights)
    pooled = next(node for node in prepared.graph.node if node.op_type == "GlobalAveragePool").output[0]
    group = next(place for place in places.activations if pooled in place.tensors)
    assert group.rounded == (pooled,)
    assert prepared.graph.output[0].name in {name for place in places.activations for name in place.tensors}
    first = next(place for place in places.activations if "input" in place.tensors)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    assert first.scale == float(stored["input_scale"])


def test_a_state_that_is_loaded_again_brings_its_zero_points(observed):
    """What held-out samples kept, or an average: extremes without their zero point cut at the wrong end."""
    prepared, record, images = observed
    network, rounding, _ = rounded(prepared, record, PROFILES["arm"], "moving-average")
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    before = [(fake.zero_point, float(fake.scale)) for fake in rounding.activations]
    for _ in range(10):
        network.train()(torch.from_numpy(2 - 3 * images))
    moved = [(fake.zero_point, float(fake.scale)) for fake in rounding.activations]
    assert moved[0][0] != before[0][0]
    network.load_state_dict(kept)
    assert [(fake.zero_point, float(fake.scale)) for fake in rounding.activations] == before


def test_zeros_of_weights_are_kept_and_logarithms_of_scales_are_not(observed):
    prepared, record, _ = observed
    sparse = sparsify(prepared, 0.5, pattern="2:4").model
    network, _, _ = rounded(sparse, record, PROFILES["arm"])
    zeros = KeptZeros(network)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    zeros.apply()
    for name, parameter in network.named_parameters():
        if name.endswith("log_factor"):
            assert (parameter == 1).all()
        elif parameter.dim() > 1:
            assert torch.equal(parameter == 0, before[name] == 0)
    assert zeros.count > 0
    assert KeptZeros(rounded(prepared, record, PROFILES["arm"])[0]).note == ""
