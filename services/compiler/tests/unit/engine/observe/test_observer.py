"""What is observed is what the activations take, however the runtime fuses and lays them out."""

from __future__ import annotations

import json
import weakref

import numpy as np
import onnx
import pytest
from onnx import helper

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.observe import CalibrationRecord, Observer, TensorRange, observe
from boardwright.compiler.engine.observe.optimised import block_size


def images(count, *shape, seed=1, name="x"):
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=shape).astype(np.float32)} for _ in range(count)]


def check(model, feeds, record, truth):
    """Compare every tensor's range, channels and means with the values themselves."""
    values = [truth(model, feed) for feed in feeds]
    assert set(record.statistics) == set(values[0]) == set(record.ranges)
    for name in values[0]:
        found, taken = record.statistics[name], np.concatenate([entry[name] for entry in values])
        assert found.histogram.total > 0
        if found.source == "clipped":
            of = record.statistics[found.of[0]]
            assert (found.low, found.high) == (of.low, of.high)
            continue
        # A function with a turning point is known up to how near a value came to that point.
        slack = 2e-3 if found.source in ("derived", "joined") else 1e-5
        tolerance = slack * max(1.0, float(np.abs(taken).max()))
        assert found.low == pytest.approx(taken.min(), abs=tolerance), name
        assert found.high == pytest.approx(taken.max(), abs=tolerance), name
        if found.channels is not None:
            others = tuple(axis for axis in range(taken.ndim) if axis != found.channels.axis)
            slack = 0.1 if found.source in ("derived", "joined") else 1e-5
            assert np.abs(np.array(found.channels.low) - taken.min(axis=others)).max() < slack, name
            assert np.abs(np.array(found.channels.high) - taken.max(axis=others)).max() < slack, name
        if name in record.means:
            others = tuple(axis for axis in range(taken.ndim) if axis != 1)
            assert np.allclose(record.means[name], taken.mean(axis=others), atol=1e-4), name


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("sampling", ["sampled", "exact"])
def test_ranges_channels_and_means_are_those_of_every_value(network, truth, opset, sampling):
    model, feeds = network(opset), images(3, 1, 3, 20, 20)
    record = observe(model, feeds, sampling=sampling, threads=1)
    assert (record.samples, record.sampling, record.method) == (3, sampling, "min-max")
    check(model, feeds, record, truth)
    sources = {name: found.source for name, found in record.statistics.items()}
    assert sources["c1"] == "clipped"
    assert sources["silu"] == sources["gate"] == "derived"
    assert sources["join"] == "joined"
    assert sources["moved"] == "same"
    assert sources["sum"] in ("measured", "clipped")
    assert {"x", "relu", "silu", "clip", "pool", "vector"} == set(record.means)


def test_zeros_that_fill_a_block_of_channels_are_no_values(build, truth):
    """Five channels of 3 to 4 lie in a block of 8 or 16 with zeros beside them."""
    kernel = np.full((5, 8, 1, 1), 0.125, np.float32)
    model = build(
        [helper.make_node("Conv", ["x", "k", "b"], ["y"]), helper.make_node("Conv", ["y", "k2"], ["z"])],
        {"k": kernel, "b": np.full(5, 3, np.float32), "k2": np.ones((8, 5, 1, 1), np.float32)},
        {"x": [1, 8, 6, 6]},
        {"z": [1, 8, 6, 6]},
    )
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.random((1, 8, 6, 6), dtype=np.float32)} for _ in range(2)]
    for sampling in ("sampled", "exact"):
        record = observe(model, feeds, sampling=sampling, threads=1)
        check(model, feeds, record, truth)
        found = record.statistics["y"]
        assert 3 <= found.low < found.high <= 4
        assert found.histogram.ordered()[0].min() > 2.9
        assert len(found.channels.low) == 5
        assert found.histogram.total == 2 * 5 * 36
    assert block_size() in (1, 4, 8, 16)


def test_a_block_of_a_transformer(build, truth):
    rng = np.random.default_rng(2)
    weights = {f"w{n}": (rng.normal(size=(24, 24)) / 5).astype(np.float32) for n in range(4)}
    model = build(
        [
            helper.make_node("LayerNormalization", ["x", "scale"], ["norm"], axis=-1),
            helper.make_node("MatMul", ["norm", "w0"], ["q"]),
            helper.make_node("MatMul", ["norm", "w1"], ["k"]),
            helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["q", "kt"], ["scores"]),
            helper.make_node("Mul", ["scores", "root"], ["scaled"]),
            helper.make_node("Softmax", ["scaled"], ["attention"], axis=-1),
            helper.make_node("MatMul", ["attention", "norm"], ["mixed"]),
            helper.make_node("MatMul", ["mixed", "w2"], ["up"]),
            helper.make_node("Div", ["up", "sqrt2"], ["d"]),
            helper.make_node("Erf", ["d"], ["e"]),
            helper.make_node("Add", ["e", "one"], ["f"]),
            helper.make_node("Mul", ["up", "f"], ["g"]),
            helper.make_node("Mul", ["g", "half"], ["gelu"]),
            helper.make_node("MatMul", ["gelu", "w3"], ["down"]),
            helper.make_node("Add", ["down", "x"], ["y"]),
        ],
        {
            **weights,
            "scale": np.ones(24, np.float32),
            "root": np.array(24**-0.5, np.float32),
            "sqrt2": np.array(2**0.5, np.float32),
            "one": np.array(1, np.float32),
            "half": np.array(0.5, np.float32),
        },
        {"x": [1, 40, 24]},
        {"y": [1, 40, 24]},
    )
    feeds = images(2, 1, 40, 24)
    record = observe(model, feeds, threads=1)
    check(model, feeds, record, truth)
    assert record.statistics["gelu"].source == "derived"
    assert record.statistics["norm"].channels.axis == 2


def test_samples_tell_the_distribution(network):
    model, feeds = network(17), images(30, 1, 3, 20, 20)
    sampled, exact = (observe(model, feeds, sampling=kind, threads=1) for kind in ("sampled", "exact"))
    assert sampled.ranges == exact.ranges
    for name, found in exact.statistics.items():
        values, counts = found.histogram.ordered()
        below = np.cumsum(counts) / counts.sum()
        sample, weights = sampled.statistics[name].histogram.ordered()
        at = np.interp(values, sample, np.cumsum(weights) / weights.sum(), left=0)
        assert np.abs(at - below).max() < 0.03, name


def test_parts_merge_and_records_resume(network):
    model, feeds = network(17), images(6, 1, 3, 20, 20)
    whole = observe(model, feeds, threads=1, sampling="exact", method="mse")
    first = observe(model, feeds[:2], threads=1, sampling="exact", method="mse")
    merged = first.merge(observe(model, feeds[2:], threads=1, sampling="exact"))
    stored = CalibrationRecord.from_bytes(first.to_bytes())
    assert stored == first
    resumed = observe(model, feeds[2:], threads=1, sampling="exact", method="mse", resume=stored)
    for other in (merged, resumed):
        assert (other.samples, other.method) == (6, "mse")
        for name, found in whole.statistics.items():
            again = other.statistics[name]
            assert again.histogram.total == found.histogram.total
            # A derived extreme is found between the extremes of its part.
            assert again.low == pytest.approx(found.low, abs=1e-2)
            assert again.high == pytest.approx(found.high, abs=1e-2)
            if found.source == "measured":
                assert again == found
        assert np.allclose(other.means["clip"], whole.means["clip"])


def test_records_of_other_graphs_do_not_merge(network, build):
    other = build([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": [1, 4]}, {"y": [1, 4]})
    record = observe(network(17), images(1, 1, 3, 20, 20), threads=1)
    with pytest.raises(EngineError, match="made from another graph"):
        record.merge(observe(other, images(1, 1, 4), threads=1))


def test_the_first_schema_is_still_read():
    values = {
        "schema": "boardwright.calibration-record.v1",
        "method": "min-max",
        "samples": 2,
        "ranges": {"x": [-1.0, 2.0]},
        "means": {"x": [0.5]},
    }
    record = CalibrationRecord.from_json(values)
    assert record.ranges == record.ranges_for("min-max") == {"x": TensorRange(-1, 2)}
    assert record.merge(record).samples == 4
    with pytest.raises(EngineError, match="observe again"):
        record.ranges_for("mse")
    for damaged in (b"", b"[]", b'{"schema": "other"}', json.dumps({**values, "ranges": 1}).encode()):
        with pytest.raises(EngineError) as caught:
            CalibrationRecord.from_bytes(damaged)
        assert caught.value.reason == "RECORD_UNKNOWN"


def test_shapes_may_differ_from_sample_to_sample(build, truth):
    model = build(
        [
            helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["y"]),
        ],
        {"k": np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)},
        {"x": ["batch", 3, "height", "width"]},
        {"y": ["batch", 8, 1, 1]},
    )
    feeds = [images(1, 1 + n % 2, 3, 8 + n, 12, seed=n)[0] for n in range(6)]
    record = observe(model, feeds, threads=1)
    assert record.samples == 6
    taken = [truth(model, feed)["r"] for feed in feeds]
    assert record.ranges["r"].high == pytest.approx(max(float(entry.max()) for entry in taken), rel=1e-5)


def test_shapes_that_depend_on_values_and_tensors_without_values(build):
    model = build(
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("NonZero", ["r"], ["where"]),
            helper.make_node("Transpose", ["where"], ["rows"]),
            helper.make_node("GatherND", ["r", "rows"], ["kept"]),
            helper.make_node("Mul", ["kept", "two"], ["doubled"]),
            helper.make_node("Slice", ["x", "zero", "zero"], ["none"]),
        ],
        {"two": np.array([2, 2], np.float32)[:1], "zero": np.array([0], np.int64)},
        {"x": [2, 5]},
        {"doubled": [None], "none": [0, 5]},
    )
    feeds = [{"x": np.full((2, 5), value, np.float32)} for value in (1.5, -1.0)]
    record = observe(model, feeds, threads=1)
    assert record.ranges["kept"] == TensorRange(1.5, 1.5)
    assert record.ranges["doubled"].high == 3.0
    assert record.ranges["none"] == TensorRange(0, 0)
    for method in ("percentile", "entropy", "mse"):
        assert set(record.ranges_for(method)) == set(record.ranges)
    assert CalibrationRecord.from_bytes(record.to_bytes()) == record


def test_one_nan_is_found_and_what_was_seen_before_it_is_kept(network):
    model, feeds = network(17), images(4, 1, 3, 20, 20)
    feeds[2]["x"][0, 1, 7, 9] = np.nan
    observer = Observer(model, threads=1)
    for feed in feeds[:2]:
        observer.add(feed)
    with pytest.raises(EngineError, match="Sample 2 drives the activation 'x' to NaN") as caught:
        observer.add(feeds[2])
    assert caught.value.reason == "CALIBRATION_NOT_FINITE"
    assert observer.record() == observe(model, feeds[:2], threads=1)
    observer.add(feeds[3])
    assert observer.record().samples == 3


def test_infinity_in_the_middle_names_where_it_starts(build):
    model = build(
        [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])],
        {"w": np.ones((4, 2), np.float32)},
        {"x": [1, 4]},
        {"y": [1, 2]},
    )
    with pytest.raises(EngineError, match=r"Sample 1 drives the activation '[ey]' to NaN or infinity"):
        observe(model, [{"x": np.full((1, 4), value, np.float32)} for value in (1, 100)], threads=1)


@pytest.mark.parametrize(
    ("feed", "problem"),
    [
        ({}, "has no array for the input 'x'"),
        ({"x": np.zeros((1, 3, 10, 20), np.float32)}, "has the shape 1x3x10x20 for the input 'x'"),
        ({"x": np.zeros((3, 20, 20), np.float32)}, "which takes 1x3x20x20"),
        ({"x": np.zeros((1, 3, 20, 20))}, "gives float64 to the input 'x', which takes float32"),
    ],
)
def test_samples_that_do_not_fit_are_told(network, feed, problem):
    with pytest.raises(DatasetUnfit, match=problem) as caught:
        observe(network(17), [feed], threads=1)
    assert caught.value.reason == "CALIBRATION_INPUT_UNFIT"


def test_bad_questions_and_empty_datasets(network):
    model = network(17)
    for options, reason in (
        ({"method": "median"}, "METHOD_UNKNOWN"),
        ({"sampling": "some"}, "SAMPLING_UNKNOWN"),
        ({"percentile": 10.0}, "PERCENTILE_UNFIT"),
        ({}, "CALIBRATION_EMPTY"),
    ):
        with pytest.raises(EngineError) as caught:
            observe(model, [], **options)
        assert caught.value.reason == reason


def test_nothing_of_a_sample_stays(network):
    observer = Observer(network(17), threads=1)
    sizes, gone = [], []
    for feed in images(40, 1, 3, 20, 20):
        gone.append(weakref.ref(feed["x"]))
        observer.add(feed)
        del feed
        if observer.samples in (20, 40):
            sizes.append(len(observer.record().to_bytes()))
    assert sum(reference() is not None for reference in gone[:-1]) == 0
    assert sizes[1] < 1.3 * sizes[0]


def test_the_same_samples_give_the_same_bytes(network):
    model, feeds = network(17), images(3, 1, 3, 20, 20)
    first, second = (observe(model, feeds, threads=1).to_bytes() for _ in range(2))
    assert first == second


def test_the_given_model_is_left_alone(network):
    model = network(17)
    before = model.SerializeToString(deterministic=True)
    observe(model, images(1, 1, 3, 20, 20), threads=1)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(model)


def test_a_tensor_that_the_optimisers_lose_is_read_in_the_graph_as_given(network, truth, monkeypatch):
    from boardwright.compiler.engine.observe import setup

    lay_out = setup.lay_out
    monkeypatch.setattr(setup, "lay_out", lambda fused, wanted: lay_out(fused, [*wanted][:-3]))
    model, feeds = network(17), images(2, 1, 3, 20, 20)
    record = observe(model, feeds, threads=1)
    check(model, feeds, record, truth)
    assert "clipped" not in record.sources()


def test_control_flow_and_old_opsets(build):
    branch = [
        helper.make_graph(
            [helper.make_node(operator, ["r"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4])],
        )
        for operator, name in (("Neg", "down"), ("Exp", "up"))
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("ReduceMax", ["r"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "one"], ["large"]),
        helper.make_node("If", ["large"], ["y"], then_branch=branch[0], else_branch=branch[1]),
    ]
    model = build(nodes, {"one": np.array(1, np.float32)}, {"x": [1, 4]}, {"y": [1, 4]}, 13)
    feeds = [{"x": np.full((1, 4), value, np.float32)} for value in (0.5, 3)]
    record = observe(model, feeds, threads=1)
    assert record.ranges["y"].low == -3
    assert record.ranges["y"].high == pytest.approx(np.exp(0.5))
    old = build([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": [1, 3000, 4]}, {"y": [1, 3000, 4]}, 9)
    assert observe(old, images(1, 1, 3000, 4), threads=1).ranges["y"].low == 0
