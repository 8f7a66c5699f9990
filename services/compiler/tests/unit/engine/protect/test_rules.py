"""Rules on graphs of several kinds: what they keep in floating point, why, and what that is worth."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import TensorRange, observe
from boardwright.compiler.engine.protect import excluded_names, protect
from boardwright.compiler.engine.protect.measured import candidate_groups
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.compiler.engine.sqnr import decibels, noise_ratio

HEADS = (
    "anchored",
    "written in place",
    "expected",
    "exponential",
    "undecoded",
    "prior boxes",
    "rows of answers",
)
FLOAT = TensorProto.FLOAT


def dense_head(scales=(16, 8, 4), last=3, branch=0):
    """A backbone of 3×3 convolutions that halves its maps, and one last layer on each of them.

    With ``branch``, a 1×1 convolution of so many channels and its SiLU lie in front of each last layer.
    """
    random = np.random.default_rng(0)
    nodes, stored, outputs, shape = [], [], [], 2 * scales[0]
    tensor, channels = "image", 3

    def convolve(name, source, width, given, size, stride):
        weight = random.normal(0, 1 / np.sqrt(given * size * size), (width, given, size, size))
        stored.append(onnx.numpy_helper.from_array(weight.astype(np.float32), f"{name}_weight"))
        nodes.append(onnx.helper.make_node(
            "Conv", [source, f"{name}_weight"], [name], name=name, kernel_shape=[size, size],
            strides=[stride, stride], pads=[size // 2] * 4,
        ))  # fmt: skip

    for place, cells in enumerate(scales):
        for part, stride in (("down", shape // cells), ("on", 1)):
            convolve(f"{part}{place}", tensor, 32, channels, 3, stride)
            nodes.append(onnx.helper.make_node("Relu", [f"{part}{place}"], [f"{part}{place}_relu"]))
            tensor, channels, shape = f"{part}{place}_relu", 32, cells
        read, width = tensor, 32
        if branch:
            convolve(f"branch{place}", tensor, branch, 32, 1, 1)
            nodes.append(onnx.helper.make_node("Sigmoid", [f"branch{place}"], [f"gate{place}"]))
            nodes.append(onnx.helper.make_node("Mul", [f"branch{place}", f"gate{place}"], [f"silu{place}"]))
            read, width = f"silu{place}", branch
        convolve(f"answer{place}", read, last, width, 1, 1)
        outputs.append(onnx.helper.make_tensor_value_info(f"answer{place}", FLOAT, [1, last, cells, cells]))
    image = onnx.helper.make_tensor_value_info("image", FLOAT, [1, 3, 2 * scales[0], 2 * scales[0]])
    graph = onnx.helper.make_graph(nodes, "dense", [image], outputs, stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    feeds = [
        {"image": random.random((1, 3, 2 * scales[0], 2 * scales[0]), dtype=np.float32)} for _ in range(4)
    ]
    return model, feeds


def kept_db(model, quantized, feed):
    """Signal-to-noise ratio of the outputs, balanced over their channels."""
    wanted = open_session(model).run(None, feed)
    return decibels(noise_ratio(open_session(quantized).run(None, feed), wanted))


def protected(model, feeds, scheme=None):
    prepared = prepare_graph(model)
    return protect(prepared, observe(prepared, feeds).ranges, scheme)


def by_rule(exclusions, rule):
    return [found for found in exclusions if found.rule == rule]


def operators(model, names):
    kinds = {node.name: node.op_type for node in prepare_graph(model).graph.node}
    return {kinds[name] for name in names}


@pytest.mark.parametrize(
    ("head", "opset", "style"),
    [(head, 17, "torch") for head in HEADS]
    + [(head, 11, "number") for head in ("anchored", "expected", "rows of answers")]
    + [("exponential", 13, "keras"), ("prior boxes", 20, "none")],
)
def test_a_detector_keeps_its_answers_and_its_layers_stay_on_integers(
    detector_with, images, head, opset, style
):
    model = detector_with(head, opset, style)
    done = quantize(model, images, PROFILES["x86-vnni"])
    assert kept_db(model, done.model, images[-1]) > 25
    expectation = 1 if head == "expected" else 0  # the Conv with weights 0, 1, 2… is no layer
    answers = sum(len(found.nodes) for found in by_rule(done.exclusions, "answer"))
    assert done.kernels["float_layers"] <= expectation + answers
    assert done.kernels["integer_layers"] > 2 * done.kernels["float_layers"]
    assert sum(found.conversions for found in done.exclusions) <= 1


@pytest.mark.parametrize(
    "head", ["anchored", "written in place", "expected", "exponential", "rows of answers"]
)
def test_without_protection_the_same_detector_loses_its_answers(detector_with, images, head):
    model = detector_with(head)
    done = quantize(model, images, PROFILES["x86-vnni"], protect_automatically=False)
    assert kept_db(model, done.model, images[-1]) < 10


def test_every_head_is_tested(heads):
    assert heads == set(HEADS)


def test_the_widest_join_comes_first_and_names_its_inputs(detector_with, images):
    found = protected(detector_with("anchored"), images)
    assert [exclusion.rule for exclusion in found] == ["join", "join"]
    assert "-fold" in found[0].reason and "of 256 steps" in found[0].reason
    assert not set(found[0].nodes) & set(found[1].nodes)


def attention(builder, positions, score_gain, mask=None):
    """Tokens (1, N, 8) through one head of attention, with a mask added to its scores where one is given."""
    rng = np.random.default_rng(2)
    graph = builder()

    def weight(gain=1.0):
        return graph.constant(gain * rng.normal(size=(8, 8)).astype(np.float32) / np.float32(8**0.5))

    query = graph.add("MatMul", "tokens", weight(score_gain))
    key, value = graph.add("MatMul", "tokens", weight()), graph.add("MatMul", "tokens", weight())
    scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 2, 1]))
    scores = graph.add("Div", scores, graph.constant(8**0.5))
    if mask is not None:
        scores = graph.add("Add", scores, graph.constant(mask))
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=2), value)
    output = graph.add("MatMul", mixed, weight())
    return graph.model({"tokens": [1, positions, 8]}, {output: FLOAT})


def tokens(positions):
    rng = np.random.default_rng(3)
    return [{"tokens": rng.normal(size=(1, positions, 8)).astype(np.float32)} for _ in range(6)]


@pytest.mark.parametrize("lowest", [-10000.0, np.finfo(np.float32).min])
def test_an_attention_mask_does_not_drown_the_scores(builder, lowest):
    """The second is what transformers write. A mask's span is none of the scores, which stay integers."""
    mask = np.triu(np.full((16, 16), lowest, np.float32), 1)
    model = attention(builder, 16, 1.0, mask)
    found = protected(model, tokens(16))
    assert "Add" in operators(model, excluded_names(found))
    assert "MatMul" not in operators(model, excluded_names(found))
    done = quantize(model, tokens(16), PROFILES["x86-vnni"])
    blind = quantize(model, tokens(16), PROFILES["x86-vnni"], protect_automatically=False)
    feed = tokens(16)[-1]
    assert kept_db(model, done.model, feed) > 20
    assert kept_db(model, done.model, feed) > kept_db(model, blind.model, feed) + 10


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_attention_is_quantized_for_every_profile(builder, profile):
    model = attention(builder, 16, 1.0)
    done = quantize(model, tokens(16), PROFILES[profile])
    assert kept_db(model, done.model, tokens(16)[-1]) > 15


def test_scores_stay_in_float_only_where_a_step_would_change_a_weight(builder):
    calm, wild = attention(builder, 16, 1.0), attention(builder, 16, 40.0)
    assert "MatMul" not in operators(calm, excluded_names(protected(calm, tokens(16))))
    (found,) = by_rule(protected(wild, tokens(16)), "attention")
    assert "one of 255 steps would change a weight" in found.reason
    assert "MatMul" in operators(wild, found.nodes)


def test_probabilities_over_many_positions_stay_in_float(builder):
    model = attention(builder, 600, 4.0)
    (found,) = by_rule(protected(model, tokens(600)), "attention")
    assert "over 600 positions the mean weight is 0.0017" in found.reason


def test_a_norm_that_was_written_out_stays_in_float(builder):
    graph = builder()
    rng = np.random.default_rng(4)

    def weight():
        return graph.constant(rng.normal(size=(8, 8)).astype(np.float32))

    first = graph.add("MatMul", "tokens", weight())
    centred = graph.add("Sub", first, graph.add("ReduceMean", first, axes=[-1]))
    square = graph.add("Mul", centred, centred)
    variance = graph.add("Add", graph.add("ReduceMean", square, axes=[-1]), graph.constant(1e-5))
    normal = graph.add("Div", centred, graph.add("Sqrt", variance))
    scaled = graph.add("Mul", normal, graph.constant(rng.normal(size=8)))
    shifted = graph.add("Add", scaled, graph.constant(rng.normal(size=8)))
    output = graph.add("MatMul", shifted, weight())
    model = graph.model({"tokens": [1, 16, 8]}, {output: FLOAT})
    names = excluded_names(protected(model, tokens(16)))
    kinds = operators(model, names)
    if "LayerNormalization" not in {node.op_type for node in prepare_graph(model).graph.node}:
        assert {"Sqrt", "Div", "Mul", "Add"} <= kinds
    assert "MatMul" not in kinds
    done = quantize(model, tokens(16), PROFILES["x86-vnni"])
    assert kept_db(model, done.model, tokens(16)[-1]) > 25


def test_boxes_that_choose_features_in_mid_network_stay_in_float(builder):
    graph = builder()
    rng = np.random.default_rng(5)
    features = graph.conv("images", rng.normal(size=(8, 3, 3, 3)).astype(np.float32), stride=2)
    raw = graph.conv(features, rng.normal(size=(4, 8, 1, 1)).astype(np.float32))
    moved = graph.add("Transpose", graph.reshape(raw, 1, 4, 256), perm=[0, 2, 1])
    boxes = graph.reshape(graph.add("Mul", graph.add("Sigmoid", moved), graph.constant(640)), 256, 4)
    index = graph.constant(np.zeros(256), np.int64)
    cut = graph.add(
        "RoiAlign",
        features,
        boxes,
        index,
        output_height=2,
        output_width=2,
        sampling_ratio=2,
        spatial_scale=1 / 40,
    )
    flat = graph.reshape(cut, 256, 32)
    output = graph.add("MatMul", flat, graph.constant(rng.normal(size=(32, 5)).astype(np.float32)))
    model = graph.model({"images": [1, 3, 32, 32]}, {output: FLOAT})
    feeds = [{"images": rng.random((1, 3, 32, 32), dtype=np.float32)} for _ in range(3)]
    found = by_rule(protected(model, feeds), "selection")
    kinds = operators(model, excluded_names(found))
    assert {"Mul", "Sigmoid"} <= kinds
    assert "Conv" not in kinds
    assert "reads features at coordinates" in found[0].reason


def test_channels_of_different_weight_are_hopeless_only_under_one_scale(builder):
    graph = builder()
    rng = np.random.default_rng(6)
    weight = rng.normal(size=(12, 3, 3, 3)).astype(np.float32)
    weight[::2] *= 1e-3
    features = graph.add("Relu", graph.conv("images", weight))
    output = graph.conv(features, rng.normal(size=(4, 12, 1, 1)).astype(np.float32))
    model = graph.model({"images": [1, 3, 32, 32]}, {output: FLOAT})
    feeds = [{"images": rng.random((1, 3, 32, 32), dtype=np.float32)}]
    assert protected(model, feeds, PROFILES["x86-vnni"]) == ()
    (found,) = protected(model, feeds, PROFILES["vx-delegate"])
    assert found.rule == "weights"
    assert "6 of them drown" in found.reason
    assert "pass recover" in found.reason


def test_an_operator_between_floats_is_not_worth_two_conversions(builder):
    graph = builder()
    rng = np.random.default_rng(7)
    features = graph.conv("images", rng.normal(size=(8, 3, 3, 3)).astype(np.float32))
    bent = graph.add("Erf", features)
    doubled = graph.add("Mul", bent, graph.constant(2))
    bent = graph.add("Softplus", doubled)
    output = graph.conv(bent, rng.normal(size=(4, 8, 1, 1)).astype(np.float32))
    model = graph.model({"images": [1, 3, 32, 32]}, {output: FLOAT})
    feeds = [{"images": rng.random((1, 3, 32, 32), dtype=np.float32)}]
    (found,) = protected(model, feeds)
    assert (found.rule, found.conversions) == ("pocket", -2)
    assert operators(model, found.nodes) == {"Mul"}


def test_a_classifier_of_plain_layers_needs_no_protection(classifier, noise):
    feeds = [{"input": noise(1, 3, 16, 16)} for _ in range(4)]
    for profile in ("x86-vnni", "arm", "x86"):
        assert protected(classifier, feeds, PROFILES[profile]) == ()


def test_rules_can_be_left_out_and_unknown_ones_are_named(detector):
    ranges = {"pixels": TensorRange(0, 600), "chance": TensorRange(0, 1)}
    assert {found.rule for found in protect(detector, ranges, rules=["tail"])} == {"tail"}
    with pytest.raises(EngineError, match="no rule 'joins'; the rules are join, tail, answer, sum"):
        protect(detector, ranges, rules=["joins"])


def test_a_constant_can_drown_but_not_be_drowned(builder):
    graph = builder()
    weight = np.ones((2, 3, 1, 1), np.float32)
    features = graph.conv("images", weight)
    shifted = graph.add("Add", features, graph.constant(1e-6))
    output = graph.conv(shifted, np.ones((2, 2, 1, 1), np.float32))
    model = graph.model({"images": [1, 3, 8, 8]}, {output: FLOAT})
    feeds = [{"images": np.ones((1, 3, 8, 8), np.float32)}]
    assert protected(model, feeds) == ()


def test_graphs_without_layers_or_ranges_need_nothing():
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Softmax", ["x"], ["y"], name="softmax")],
        "net",
        [onnx.helper.make_tensor_value_info("x", FLOAT, [1, 3])],
        [onnx.helper.make_tensor_value_info("y", FLOAT, [1, 3])],
    )
    assert protect(onnx.helper.make_model(graph), {}) == ()


def test_the_recipe_knows_every_rule():
    from boardwright.compiler.engine.protect import ALL_RULES
    from boardwright.compiler.kinds import KINDS
    from boardwright.compiler.recipes.reading import recipe_schema

    assert KINDS["compile/protect"].defaults["rules"] == list(ALL_RULES)
    declared = recipe_schema()["$defs"]["protect"]["properties"]["rules"]["items"]["enum"]
    assert declared == list(ALL_RULES)


def test_the_layers_that_make_scores_may_pay(builder):
    model = attention(builder, 16, 40.0)
    prepared = prepare_graph(model)
    subject = Subject(prepared, observe(prepared, tokens(16)).ranges)
    found = candidate_groups(subject)["scores"]
    assert {subject.nodes[index].op_type for index in found} == {"MatMul"}
    assert len(found) == 2  # query and key, not value


def test_a_layer_left_in_float_is_not_quantized_by_the_runtime(builder, images):
    graph = builder()
    rng = np.random.default_rng(8)

    def weight(outputs, inputs, side):
        return rng.normal(size=(outputs, inputs, side, side)).astype(np.float32)

    first = graph.conv("images", weight(3, 3, 1))
    middle = graph.add("Relu", graph.conv(first, weight(12, 3, 3)))
    output = graph.conv(middle, weight(4, 12, 1))
    model = graph.model({"images": [1, 3, 32, 32]}, {output: FLOAT})
    layer = model.graph.node[1].name
    done = quantize(model, images, PROFILES["x86-vnni"], exclude=[layer])
    assert done.kernels["float_layers"] == 1  # without its guard the runtime makes it 0
    assert sum(node.name == f"{layer}_stays_float" for node in done.model.graph.node) == 1


def test_small_last_layers_of_a_dense_head_stay_in_floating_point():
    model, feeds = dense_head()
    (found,) = by_rule(protected(model, feeds), "answer")
    assert found.nodes == ("answer0", "answer1", "answer2")
    assert "of the multiplications" in found.reason
    plain = quantize(model, feeds, PROFILES["x86-vnni"], protect_automatically=False)
    kept = quantize(model, feeds, PROFILES["x86-vnni"])
    assert kept.kernels["float_layers"] == plain.kernels["float_layers"] + 3
    assert kept_db(model, kept.model, feeds[0]) > kept_db(model, plain.model, feeds[0])


def test_a_large_last_layer_stays_on_integers_beside_small_ones():
    model, feeds = dense_head(last=20)
    (found,) = by_rule(protected(model, feeds), "answer")
    assert "answer2" in found.nodes
    assert "answer0" not in found.nodes


def test_what_feeds_a_small_last_layer_stays_in_floating_point_with_its_activation():
    model, feeds = dense_head(branch=6)
    (found,) = by_rule(protected(model, feeds), "answer")
    prepared = prepare_graph(model)
    made = {node.name: node.output[0] for node in prepared.graph.node}
    assert {made[name] for name in found.nodes} >= {
        "branch2",
        "gate2",
        "silu2",
        "branch1",
        "silu1",
        "answer2",
    }
    assert "on2" not in found.nodes, "it is large, and its map is read by the branch alone through a Relu"
    done = quantize(model, feeds, PROFILES["x86-vnni"])
    rounded = {node.input[0] for node in done.model.graph.node if node.op_type == "QuantizeLinear"}
    assert not rounded & {"branch2", "gate2", "silu2"}


def test_a_large_feeder_stays_on_integers():
    model, feeds = dense_head(branch=32)
    (found,) = by_rule(protected(model, feeds), "answer")
    assert "branch2" in found.nodes
    assert "branch0" not in found.nodes


@pytest.mark.parametrize("profile", ["vx-delegate", "tidl-mma1"])
def test_no_answer_leaves_an_accelerator(profile):
    model, feeds = dense_head()
    assert by_rule(protected(model, feeds, PROFILES[profile]), "answer") == []


def test_an_accelerator_with_float16_of_its_own_is_not_left():
    model, feeds = dense_head()
    (found,) = by_rule(protected(model, feeds, PROFILES["tensorrt"]), "answer")
    assert found.nodes == ("answer0", "answer1", "answer2")


@pytest.mark.parametrize(("profile", "rounded"), [("x86-vnni", False), ("tensorrt", True)])
def test_rules_and_quantizer_agree_on_what_may_be_rounded(profile, rounded):
    """The rules took transposed convolutions for integer layers on CPUs, whose kernels are floats."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "a"], ["c"], name="conv"),
            onnx.helper.make_node("ConvTranspose", ["c", "b"], ["y"], name="up", strides=[2, 2]),
        ],
        "network",
        [onnx.helper.make_tensor_value_info("x", FLOAT, [1, 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", FLOAT, [1, 4, 16, 16])],
        [
            onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
            for name, shape in (("a", (5, 3, 1, 1)), ("b", (5, 4, 2, 2)))
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    random = np.random.default_rng(0)
    record = observe(model, [{"x": random.random((1, 3, 8, 8), dtype=np.float32)}])
    subject = Subject(model, record.ranges, PROFILES[profile])
    assert subject.may_be_integer(1) is rounded

    made = quantize(model, (), PROFILES[profile], record=record, protect_automatically=False).model
    (layer,) = (node for node in made.graph.node if node.op_type == "ConvTranspose")
    makers = {name: node.op_type for node in made.graph.node for name in node.output}
    assert (makers.get(layer.input[1]) == "DequantizeLinear") is rounded
