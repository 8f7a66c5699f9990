"""Imported graphs as torch networks: ONNX Runtime's answers, any batch size, weights that come back."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.training.network import GraphNetwork, to_onnx, to_torch

DATA = Path(__file__).parents[7] / "shared" / "data"


class Attention(torch.nn.Module):
    """As vision transformers: patches, a class token, attention whose batch is merged into the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 16, 4, 4)
        self.token = torch.nn.Parameter(torch.randn(1, 1, 16))
        self.norm = torch.nn.LayerNorm(16)
        self.projection = torch.nn.Linear(16, 48)
        self.head = torch.nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], 1)
        batch, length, _ = tokens.shape
        mixed = self.projection(self.norm(tokens)).reshape(batch, length, 3, 4, 4)
        query, key, value = mixed.permute(2, 0, 3, 1, 4).reshape(3, batch * 4, length, 4)
        weight = torch.softmax(query @ key.transpose(1, 2) / 2, -1)
        attended = (weight @ value).reshape(batch, 4, length, 4).transpose(1, 2).reshape(batch, length, 16)
        return self.head(torch.nn.functional.gelu(tokens + attended)[:, 0])


class Pyramid(torch.nn.Module):
    """Strides, joins, two ways up, pooling at odd sizes, a transposed convolution and a decode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.SiLU())
        self.deep = torch.nn.Sequential(
            torch.nn.Conv2d(8, 8, 3, 2, 1, groups=8), torch.nn.Hardswish(), torch.nn.Conv2d(8, 16, 1)
        )
        self.up = torch.nn.ConvTranspose2d(16, 8, 2, 2)
        self.heads = torch.nn.ModuleList([torch.nn.Conv2d(24, 12, 1), torch.nn.Conv2d(24, 12, 1)])
        self.prelu = torch.nn.PReLU(24)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stem = self.stem(image)
        deep = self.deep(stem)
        near = torch.nn.functional.interpolate(deep, scale_factor=2.0, mode="nearest")
        smooth = torch.nn.functional.interpolate(deep, scale_factor=2.0, mode="bilinear")
        pooled = torch.nn.functional.max_pool2d(stem, 5, 1, 2)
        first = self.heads[0](self.prelu(torch.cat([near + smooth, self.up(deep)], 1)))
        second = self.heads[1](torch.cat([smooth, pooled], 1))
        parts = [part.reshape(part.shape[0], 2, 6, -1).permute(0, 1, 3, 2) for part in (first, second)]
        rows = torch.cat([part.reshape(part.shape[0], -1, 6) for part in parts], 1).sigmoid()
        boxes, scores = rows.split([4, 2], 2)
        return boxes * 32, scores.softmax(-1)


def exported(network: torch.nn.Module, opset: int, folder: Path) -> onnx.ModelProto:
    path = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = (torch.zeros(1, 3, 32, 32),)
        torch.onnx.export(network.eval(), sample, path, opset_version=opset, dynamo=False)
    return onnx.load(path)


def answers(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    """Outputs of ONNX Runtime, one image at a time."""
    session = open_session(model, threads=1)
    name = session.get_inputs()[0].name
    runs = [session.run(None, {name: image[None]}) for image in images]
    return [np.concatenate(outputs) for outputs in zip(*runs, strict=True)]


def noise(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape), dtype=np.float32)


@pytest.mark.parametrize("opset", [11, 17, 20])
@pytest.mark.parametrize("kind", [Attention, Pyramid])
def test_a_graph_of_batch_one_answers_any_batch_as_the_runtime_does(kind, opset, tmp_path):
    torch.manual_seed(0)
    model = exported(kind(), opset, tmp_path)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    network = to_torch(model)
    images = noise(3, 3, 32, 32)
    for count in (1, 3, 2):
        with torch.no_grad():
            given = network(torch.from_numpy(images[:count]))
        for ours, theirs in zip(given, answers(model, images[:count]), strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-3, atol=1e-4)


def test_trained_weights_go_back_into_the_graph(tmp_path):
    torch.manual_seed(0)
    model = exported(Attention(), 17, tmp_path)
    network = to_torch(model)
    images = torch.from_numpy(noise(4, 3, 32, 32))
    before = to_onnx(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        network(images)[0].square().mean().backward()
        optimizer.step()
    after = to_onnx(network)
    with torch.no_grad():
        wanted = network(images)[0].numpy()
    np.testing.assert_allclose(answers(after, images.numpy())[0], wanted, rtol=1e-3, atol=1e-4)
    assert np.abs(answers(before, images.numpy())[0] - wanted).max() > 1e-3


def test_batch_norms_stay_to_be_trained_where_they_are_asked_for():
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], name="conv"),
        helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["out"], name="norm"),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(4, 3, 1, 1)), "s": rng.random(4), "b": rng.random(4), "m": rng.random(4),
        "v": rng.random(4) + 0.5,
    }  # fmt: skip
    model = graph_of(nodes, constants, [1, 3, 8, 8])
    assert [type(layer).__name__ for layer in to_torch(model).layers.values()] == ["Conv2d"]
    network = to_torch(model, fold_batch_norms=False)
    assert isinstance(network.layer("norm"), torch.nn.BatchNorm2d)
    images = noise(5, 3, 8, 8)
    with torch.no_grad():
        given = network(torch.from_numpy(images))[0].numpy()
    np.testing.assert_allclose(given, answers(model, images)[0], rtol=1e-4, atol=1e-5)
    network.train()(torch.from_numpy(images))
    means = next(t for t in to_onnx(network).graph.initializer if t.name == "m")
    assert not np.allclose(numpy_helper.to_array(means), constants["m"])


def test_the_expectation_over_box_edges_is_not_trained():
    weight = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], name="layer"),
        helper.make_node("Softmax", ["a"], ["b"], axis=1, name="softmax"),
        helper.make_node("Conv", ["b", "edges"], ["out"], name="expectation"),
    ]
    model = graph_of(nodes, {"w": np.ones((8, 3, 1, 1)), "edges": weight}, [1, 3, 4, 4])
    network = to_torch(model)
    assert network.layer("layer").weight.requires_grad
    assert not network.layer("expectation").weight.requires_grad


def test_weights_that_two_layers_share_stay_one():
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "w"], ["out"], name="second"),
    ]
    network = to_torch(graph_of(nodes, {"w": np.eye(3).reshape(3, 3, 1, 1)}, [1, 3, 4, 4]))
    assert network.layer("first").weight is network.layer("second").weight


def test_activations_and_taps_go_by_the_graphs_names(classifier):
    network = to_torch(classifier)
    image = torch.from_numpy(noise(2, 3, 16, 16))
    hidden = classifier.graph.node[2].output[0]
    found = network.tensors(image, [hidden])
    assert found[hidden].shape == (2, 3, 1, 1)
    network.taps[hidden] = torch.zeros_like
    assert network(image)[0].abs().max() == 0
    with pytest.raises(EngineError, match="no tensor 'nowhere'") as caught:
        network.tensors(image, ["nowhere"])
    assert caught.value.reason == "TENSOR_UNKNOWN"


def test_a_classifier_takes_other_sizes_and_a_bound_decode_does_not(classifier, detector):
    assert to_torch(classifier).takes_size(24, 24)
    assert not to_torch(detector).takes_size(24, 24)


def test_an_unknown_operator_is_named():
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], name="conv"),
        helper.make_node("MaxRoiPool", ["a", "rois"], ["out"], name="pool", pooled_shape=[1, 1]),
    ]
    constants = {"w": np.ones((3, 3, 1, 1)), "rois": np.zeros((1, 5))}
    with pytest.raises(EngineError, match=r"MaxRoiPool \(node 'pool'\)") as caught:
        GraphNetwork(graph_of(nodes, constants, [1, 3, 4, 4]))
    assert caught.value.reason == "TRAINING_OPERATOR_UNSUPPORTED"


def test_half_precision_weights_are_refused():
    weight = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float16), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["out"], name="conv")],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT16, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT16, None)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(EngineError, match="no float32") as caught:
        GraphNetwork(model)
    assert caught.value.reason == "TRAINING_TYPE_UNSUPPORTED"


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data with real models beside the checkout")
@pytest.mark.parametrize("name", ["mobilenet_v1_0.75_224", "yolov5n"])
def test_real_networks_answer_as_the_runtime_does(name):
    model = onnx.load(DATA / "models" / f"{name}.onnx")
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    images = noise(2, *shape[1:])
    with torch.no_grad():
        given = to_torch(model)(torch.from_numpy(images))[0].numpy()
    wanted = answers(model, images)[0]
    np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[int]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_batch_that_is_squeezed_away_runs_alone_and_is_told_at_another_size():
    """JAX squeezes every axis of length 1: at a batch of 2 there is one axis more than when it was seen."""
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["x"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["y"]),
        ],
        "squeezed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(np.array([2, 3], np.int64), "shape")],
    )
    network = GraphNetwork(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert network(torch.arange(6.0)[None])[0].shape == (2, 3)
    with pytest.raises(EngineError):
        network(torch.zeros(2, 6))
