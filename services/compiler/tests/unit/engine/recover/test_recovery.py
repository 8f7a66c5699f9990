"""The pass as a whole: what helps is kept, what does not is not, and quantize takes over what was found."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.calibrated import calibrate
from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.quantize import quantize, quantize_calibrated
from boardwright.compiler.engine.recover import (
    METHODS,
    ReconstructionOptions,
    RecoverOptions,
    RoundingOptions,
    recover,
    recovery,
)
from boardwright.compiler.engine.recover.segments import cut, multiplications
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme

FEW = ReconstructionOptions(layers_per_block=2, most_updates=12, fewest_updates=4)
COARSE = QuantizationScheme(reduce_range=True, per_channel=False)


def error(model, reference, images):
    ours, theirs = open_session(model), open_session(reference)
    return float(
        np.mean([np.square(ours.run(None, feed)[0] - theirs.run(None, feed)[0]).mean() for feed in images])
    )


@pytest.mark.parametrize("activation", ["Relu", "SiLU"])
def test_every_method_together_brings_the_outputs_nearer(images, activation, network):
    model = network(activation)
    brief = RoundingOptions(updates=40)
    options = RecoverOptions(methods=METHODS, samples=12, reconstruction=FEW, rounding=brief)
    found = recover(model, lambda: images[:20], COARSE, options)
    assert found.error_after < 0.8 * found.error_before
    errors = [entry.after for entry in found.methods if entry.applied]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == found.error_after
    json.dumps(found.describe(), allow_nan=False)
    plain = quantize_calibrated(calibrate(prepare_graph(model), images[:20], COARSE), COARSE)
    better = quantize(
        model, (), COARSE, record=plain.record, exclusions=found.exclusions, recovered=found.file()
    )
    assert error(better.model, model, images[20:]) < error(plain.model, model, images[20:])
    assert better.kernels["float_layers"] == plain.kernels["float_layers"]


def test_the_same_samples_and_seed_give_the_same_bytes(images, network):
    brief = RoundingOptions(updates=20)
    options = RecoverOptions(methods=METHODS, samples=6, held_out=2, reconstruction=FEW, rounding=brief)
    first, second = (recover(network("SiLU"), lambda: images, COARSE, options).file() for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_method_that_makes_it_worse_is_not_applied(images, network):
    wild = ReconstructionOptions(layers_per_block=4, most_updates=10, weight_rate=60.0, scale_rate=1.0)
    options = RecoverOptions(methods=("reconstruction",), reconstruction=wild)
    found = recover(network("Relu"), lambda: images, PROFILES["x86-vnni"], options)
    (told,) = found.methods
    assert not told.applied
    assert found.error_after == found.error_before
    assert all(not block["applied"] for block in told.details["blocks"])


def test_methods_without_work_say_so(images, network):
    found = recover(
        network("Clip"), lambda: images, PROFILES["x86-vnni"], RecoverOptions(methods=("equalization",))
    )
    assert "stands between them" in found.methods[0].details["refused"][0]


def test_a_recovered_graph_of_another_model_is_refused(images, network):
    found = recover(network("Relu"), lambda: images, PROFILES["x86-vnni"], RecoverOptions(methods=()))
    with pytest.raises(EngineError, match="made from another model"):
        quantize(network("SiLU"), images, PROFILES["x86-vnni"], recovered=found.file())
    with pytest.raises(EngineError, match="holds no recovered ranges"):
        quantize(network("Relu"), images, PROFILES["x86-vnni"], recovered=network("Relu"))
    with pytest.raises(EngineError, match="no method 'round'"):
        RecoverOptions(methods=("round",))
    with pytest.raises(DatasetUnfit, match="no sample"):
        recover(network("Relu"), list, PROFILES["x86-vnni"])


def test_blocks_cover_all_layers_and_fit_together(images, network):
    prepared = prepare_graph(network("SiLU"))
    blocks = cut(prepared, 2)
    assert [block.layers for block in blocks] == [("conv1", "conv2"), ("conv3", "gemm")]
    for block in blocks:
        onnx.checker.check_model(block.model)
    state = dict(images[0])
    for block in blocks:
        made = open_session(block.model).run(
            list(block.outputs), {name: state[name] for name in block.inputs}
        )
        state |= dict(zip(block.outputs, made, strict=True))
    expected = open_session(prepared).run(None, images[0])[0]
    np.testing.assert_allclose(state["logits"], expected, rtol=1e-4, atol=1e-4)
    assert multiplications(prepared) == 12 * 12 * 8 * 27 + 5 * 5 * (8 * 9 + 12 * 8) + 48


def test_blocks_whose_first_axis_is_no_batch_are_learnt_sample_by_sample():
    """As PyTorch writes attention: positions first, and both in one axis for the matrix products."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["input", "patches"], ["p"], name="patches", strides=[4, 4]),
        helper.make_node("Reshape", ["p", "flat"], ["f"], name="flatten"),
        helper.make_node("Transpose", ["f"], ["t"], name="positions_first", perm=[2, 0, 1]),
        helper.make_node("Reshape", ["t", "rows"], ["r"], name="rows"),
        helper.make_node("Gemm", ["r", "first"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Reshape", ["b", "back"], ["c"], name="back"),
        helper.make_node("MatMul", ["c", "second"], ["d"], name="second"),
        helper.make_node("ReduceMean", ["d"], ["e"], name="mean", axes=[0], keepdims=0),
        helper.make_node("Gemm", ["e", "last"], ["logits"], name="last"),
    ]
    constants = {
        "patches": rng.normal(size=(8, 3, 4, 4)), "first": rng.normal(size=(8, 12)),
        "second": rng.normal(size=(12, 8)), "last": rng.normal(size=(8, 3)),
    }  # fmt: skip
    shapes = {"flat": [1, 8, 16], "rows": [16, 8], "back": [16, 1, 12]}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.array(value), name) for name, value in shapes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = [{"input": rng.random((1, 3, 16, 16), dtype=np.float32)} for _ in range(14)]
    steps = ReconstructionOptions(layers_per_block=1, most_updates=8, fewest_updates=8)
    options = RecoverOptions(methods=("reconstruction",), samples=10, held_out=4, reconstruction=steps)
    (told,) = recover(model, lambda: feeds, COARSE, options).methods
    assert "does not work" not in told.reason
    assert len(told.details["blocks"]) >= 3


def test_a_learnt_number_stays_a_number():
    """A factor without axes that came back with one made the graph invalid, and nothing was learnt."""
    from boardwright.compiler.engine.graph.editing import with_values

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array(1, np.float32), "factor")],
    )
    written = with_values(helper.make_model(graph), {"factor": np.array(2, np.float32)})
    assert list(written.graph.initializer[0].dims) == []
    assert numpy_helper.to_array(written.graph.initializer[0]) == 2


def dense_network():
    """Two convolutions that answer for every cell."""
    random = np.random.default_rng(0)
    weights = {"a": (8, 3, 3, 3), "b": (4, 8, 1, 1)}
    stored = [
        onnx.numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["image", "a"], ["map"], name="first", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["map"], ["positive"], name="relu"),
        onnx.helper.make_node("Conv", ["positive", "b"], ["answer"], name="last"),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, 16, 16])
        for name, channels in (("image", 3), ("answer", 4))
    ]
    graph = onnx.helper.make_graph(nodes, "dense", values[:1], values[1:], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return model, [{"image": random.random((1, 3, 16, 16), dtype=np.float32)} for _ in range(6)]


@pytest.mark.parametrize("asked", [False, True])
def test_networks_that_answer_for_every_cell_are_learnt_only_when_asked(asked):
    model, feeds = dense_network()
    options = RecoverOptions(samples=4, held_out=2, dense_heads=asked)
    found = recover(model, lambda: iter(feeds), PROFILES["x86-vnni"], options)
    (told,) = (method for method in found.methods if method.method == "reconstruction")
    assert ("answers for every cell" in told.reason) is not asked
    assert ("blocks" in told.details) is asked


def test_feeds_may_hold_what_the_graph_does_not_read():
    model, feeds = dense_network()
    options = RecoverOptions(methods=("ranges", "rounding"), samples=4, held_out=2, dense_heads=True)
    plain = recover(model, lambda: feeds, PROFILES["x86-vnni"], options)
    more = [{**feed, "label": np.array([3])} for feed in feeds]
    found = recover(model, lambda: more, PROFILES["x86-vnni"], options)
    assert found.file().SerializeToString(deterministic=True) == plain.file().SerializeToString(
        deterministic=True
    )


def test_outputs_that_are_no_numbers_are_no_measure():
    """An error of 0 beside them would call any rounding perfect."""
    model, feeds = dense_network()
    start = calibrate(prepare_graph(model), feeds, COARSE)
    broken = [{"image": np.full((1, 3, 16, 16), np.nan, np.float32)}, *feeds]
    judge = recovery.Judge(start.model, broken, COARSE, set())
    assert judge.error(start.model, start.record) == np.inf


def test_a_node_to_leave_out_that_is_not_there_is_refused():
    model, feeds = dense_network()
    with pytest.raises(EngineError, match="Did you mean 'first'") as told:
        recover(model, lambda: feeds, PROFILES["x86-vnni"], RecoverOptions(methods=()), exclude=["frist"])
    assert told.value.reason == "NODE_UNKNOWN"


@pytest.mark.parametrize(("errors", "kept"), [((0.5, 0.1, 0.2), True), ((0.5, 0.1, 0.6), False)])
def test_a_dense_heads_corrected_biases_stay_unless_all_gains_are_lost(monkeypatch, errors, kept):
    told = iter(errors)  # before, by the one norm, with the correction
    monkeypatch.setattr(recovery, "NORMS", (3.0,))
    monkeypatch.setattr(recovery.Judge, "error", lambda *_: next(told))
    model, feeds = dense_network()
    options = RecoverOptions(methods=("ranges", "bias-correction"), samples=4, held_out=2)
    found = recover(model, lambda: feeds, PROFILES["x86-vnni"], options)
    assert [method.applied for method in found.methods] == [True, kept]
    assert found.error_after == (errors[2] if kept else errors[1])
