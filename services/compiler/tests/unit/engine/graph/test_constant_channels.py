"""Weights that multiply channels which never change are left out; the float function stays what it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.constant_channels import drop_constant_channels
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.protect import protect
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.recover import RecoverOptions, recover
from boardwright.compiler.engine.scheme import PROFILES

DEAD, STUCK = (1, 4, 6), (2,)
"""Channels of the first layer that are always 0, and that are always 0.75."""


def constants() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    found = {
        "w1": normal(8, 3, 3, 3), "b1": normal(8), "w2": normal(8, 1, 3, 3), "b2": normal(8),
        "w3": normal(12, 8, 1, 1), "b3": normal(12), "w4": normal(24, 4), "b4": normal(4),
        "zero": np.array(0, np.float32), "six": np.array([6], np.float32),
    }  # fmt: skip
    for channels, bias in ((DEAD, -0.3), (STUCK, 0.75)):
        found["w1"][list(channels)] *= 1e-12
        found["b1"][list(channels)] = bias
        found["w2"][list(channels)] *= 300
    return found


def network(activation: str = "Clip", **changed: np.ndarray) -> onnx.ModelProto:
    """Conv, activation, depthwise Conv, Relu, Conv 1x1, Concat with itself, pooling, Flatten and Gemm."""
    bounds = ["zero", "six"] if activation == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1"),
        helper.make_node(activation, ["c1", *bounds], ["a1"], name="act"),
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["a2"], name="relu2"),
        helper.make_node("Conv", ["a2", "w3", "b3"], ["c3"], name="pointwise"),
        helper.make_node("Relu", ["c3"], ["a3"], name="relu3"),
        helper.make_node("Concat", ["a3", "a3"], ["j"], name="join", axis=1),
        helper.make_node("GlobalAveragePool", ["j"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["logits"], name="gemm"),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 14, 14])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in {**constants(), **changed}.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def inputs(count: int = 12, seed: int = 1, size: float = 1.0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": (size * rng.normal(size=(1, 3, 14, 14))).astype(np.float32)} for _ in range(count)]


def answers(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    session = open_session(model, threads=1)
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def dropped(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, int]]:
    prepared = prepare_graph(model)
    written, found = drop_constant_channels(prepared, observe(prepared, inputs(), threads=1).ranges)
    return prepared, written, dict(found.layers)


@pytest.mark.parametrize("activation", ["Clip", "Relu"])
def test_the_float_function_stays_the_same_for_inputs_never_seen(activation):
    prepared, written, layers = dropped(network(activation))
    assert layers["depthwise"] == len(DEAD)
    unseen = inputs(seed=2, size=2.0)
    expected = answers(prepared, unseen)
    np.testing.assert_allclose(answers(written, unseen), expected, atol=1e-5 * np.abs(expected).max())


def test_weights_of_channels_that_are_always_zero_no_longer_set_the_scale():
    model = network(w2=np.where(np.isin(np.arange(8), STUCK)[:, None, None, None], 1, constants()["w2"]))
    prepared, written, _ = dropped(model)
    before, after = (np.abs(weight(found, "w2")).max(axis=(1, 2, 3)) for found in (prepared, written))
    alive = [channel for channel in range(8) if channel not in DEAD]
    np.testing.assert_array_equal(after[alive], before[alive])
    assert before[list(DEAD)].max() > 50 * before[alive].max()
    assert 0 < after[list(DEAD)].min() <= after[list(DEAD)].max() <= before[alive].max()


@pytest.mark.parametrize(("profile", "gain"), [("vx-delegate", 0.05), ("arm", 1.05), ("x86-vnni", 1.05)])
def test_rounding_costs_a_fraction_of_it_under_one_scale_and_no_more_under_one_each(profile, gain):
    model = network(w2=np.where(np.isin(np.arange(8), STUCK)[:, None, None, None], 1, constants()["w2"]))
    prepared, written, _ = dropped(model)
    expected = answers(prepared, inputs())
    scheme = PROFILES[profile]

    def error(found: onnx.ModelProto) -> float:
        from boardwright.compiler.engine.quantize import insert_quantization

        record = observe(found, inputs(), threads=1)
        quantized = insert_quantization(found, record, scheme, set())
        return float(np.square(answers(quantized, inputs()) - expected).mean())

    assert error(written) <= gain * error(prepared)


def test_every_pass_that_rounds_leaves_them_out():
    model = network(w2=np.where(np.isin(np.arange(8), STUCK)[:, None, None, None], 1, constants()["w2"]))
    scheme = PROFILES["vx-delegate"]
    done = quantize(model, inputs(), scheme, threads=1)
    assert "depthwise" not in {name for found in done.exclusions for name in found.nodes}
    assert any("never change, whatever the input" in note for note in done.notes)
    expected = answers(model, inputs())
    noise = np.square(answers(done.model, inputs()) - expected).mean()
    assert noise < 0.02 * expected.var()
    prepared = prepare_graph(model)
    record = observe(prepared, inputs(), threads=1)
    assert "weights" not in {found.rule for found in protect(prepared, record.ranges, scheme)}
    recovered = recover(model, inputs, scheme, RecoverOptions(methods=("bias-correction",)), exclusions=())
    assert np.abs(weight(recovered.model, "w2")).max() < np.abs(weight(prepared, "w2")).max() / 50


def test_a_constant_that_is_not_zero_goes_into_the_bias_where_no_border_cuts_it_off():
    """The depthwise layer pads its input with zeros: 0.75 inside is no 0.75 at the border."""
    prepared, written, layers = dropped(network())
    assert layers["depthwise"] == len(DEAD)
    np.testing.assert_array_equal(weight(written, "w2")[list(STUCK)], weight(prepared, "w2")[list(STUCK)])
    # Behind a dead depthwise channel stands its own bias: relu(b2), which the pointwise layer reads unpadded.
    speaking = [channel for channel in DEAD if constants()["b2"][channel] > 0]
    assert speaking
    assert layers["pointwise"] == len(DEAD)
    assert not weight(written, "w3")[:, list(DEAD)].any()
    expected = constants()["b3"] + constants()["w3"][:, speaking, 0, 0] @ constants()["b2"][speaking]
    np.testing.assert_allclose(weight(written, "b3"), expected, rtol=1e-5)


def test_constants_are_followed_through_joins_and_pooling_to_the_last_layer():
    first = constants()
    first["w3"][:5] = 0
    first["b3"][:5] = (-1, 0.5, -1, 0.25, 0)
    prepared, written, layers = dropped(network(w3=first["w3"], b3=first["b3"]))
    assert layers["gemm"] == 10
    assert not weight(written, "w4")[[0, 1, 2, 3, 4, 12, 13, 14, 15, 16]].any()
    expected = answers(prepared, inputs(seed=3))
    np.testing.assert_allclose(answers(written, inputs(seed=3)), expected, atol=1e-5 * np.abs(expected).max())


def test_channels_that_were_only_never_seen_to_speak_keep_their_weights():
    """Shut on every calibration input, and open on one of twice the size."""
    first = constants()
    for name in ("w1", "b1", "w2"):
        first[name] = np.random.default_rng(5).normal(size=first[name].shape).astype(np.float32)
    model = network(**{name: first[name] for name in ("w1", "b1", "w2")})
    reached = answers_of(prepare_graph(model), "c1", inputs()).max()
    first["b1"][0] = -1.2 * reached
    model = network(**{name: first[name] for name in ("w1", "b1", "w2")})
    prepared, written, layers = dropped(model)
    assert not answers_of(prepared, "a1", inputs())[:, 0].any()
    assert answers_of(prepared, "a1", inputs(size=2.5))[:, 0].any()
    assert layers == {}
    assert written is prepared


def test_weights_that_several_layers_share_stay():
    model = network()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.float32), "other"))
    model.graph.node.append(
        helper.make_node("Conv", ["a1", "w2", "other"], ["twin"], name="twin", group=8, pads=[1, 1, 1, 1])
    )
    model.graph.output.append(helper.make_tensor_value_info("twin", TensorProto.FLOAT, [1, 8, 12, 12]))
    _, _, layers = dropped(model)
    assert "depthwise" not in layers
    assert "twin" not in layers


def answers_of(model: onnx.ModelProto, tensor: str, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    session = open_session(shown, level="none", threads=1)
    return np.concatenate([session.run([tensor], feed)[0] for feed in feeds])
