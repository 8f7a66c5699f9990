"""The pass as a whole: amounts are reached, nothing is lost without a word, and training goes on."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.compiler.engine.pruning import PruneOptions, prune
from boardwright.compiler.engine.pruning.channels import is_heads
from boardwright.compiler.engine.pruning.dependencies import find_dependencies
from boardwright.compiler.engine.pruning.graph import prepare_for_pruning
from boardwright.compiler.engine.pruning.sensitivity import output_error
from boardwright.compiler.engine.pruning.taylor import taylor
from boardwright.compiler.engine.pruning.units import find_cells


@pytest.mark.parametrize("scope", ["uniform", "global", "sensitivity"])
@pytest.mark.parametrize("measure", ["channels", "parameters", "macs"])
def test_what_was_asked_for_is_removed(digits, scope, measure):
    options = PruneOptions(0.4, measure, scope, "l2", round_to=1, compensation="none", sensitivity_samples=2)
    done = prune(digits.model, digits.learnt[:8], options)
    record = done.describe()
    json.dumps(record, allow_nan=False)
    if measure == "channels":
        before, after = (sum(widths[side] for widths in done.layers.values()) for side in (0, 1))
        assert 1 - after / before > 0.3
    else:
        assert 0.39 < record["removed"][measure] < 0.5
    sizes = (done.model.ByteSize(), digits.model.ByteSize())
    assert sizes[0] < sizes[1]
    assert bool(record["sensitivity"]) == (scope == "sensitivity")


def test_least_squares_keep_accuracy_where_plain_removal_loses_it(digits):
    baseline = digits.top1(digits.model)
    assert baseline > 0.94
    top1 = {}
    for compensation in ("none", "mean", "least-squares"):
        options = PruneOptions(
            0.35,
            scope="uniform",
            importance="reconstruction",
            compensation=compensation,
            round_to=1,
            rounds=1,
        )
        done = prune(digits.model, digits.learnt, options)
        assert done.describe()["removed"]["macs"] >= 0.34
        top1[compensation] = digits.top1(done.model)
    assert top1["least-squares"] > top1["none"] + 0.2
    assert top1["least-squares"] >= top1["mean"]
    assert top1["least-squares"] > baseline - 0.06
    assert done.output_error < done.error_uncompensated


def test_a_channel_that_others_predict_goes_first_and_is_not_missed(feeds):
    """Half of the channels are sums of the others: least squares puts them back exactly."""
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 4, 3, padding=1)
    with torch.no_grad():
        first.weight[4:] = first.weight[:4] + 0.5 * first.weight[[1, 2, 3, 0]]
        first.bias.zero_()
        first.weight[4:] *= 3
    from boardwright.compiler.engine.export import export_network
    from boardwright.model import InputSpec

    spec = InputSpec(height=16, width=16, batch=1, resize="none")
    model = export_network(torch.nn.Sequential(first, second, torch.nn.Conv2d(4, 2, 1)).eval(), spec)
    options = PruneOptions(
        importance="reconstruction", layers={"/0/Conv": 0.5}, exclude=("/1/Conv",), round_to=1
    )
    done = prune(model, feeds, options)
    assert done.layers == {"/0/Conv": (8, 4)}
    assert done.output_error < 0.1 < done.error_uncompensated


@pytest.mark.parametrize("importance", ["auto", "l1", "l2", "reconstruction", "taylor"])
def test_every_importance_finds_channels_that_do_nothing(graph, feeds, importance):
    model = graph("Residual")
    weight = next(t for t in model.graph.initializer if t.name == "second.weight")
    dead = [1, 4, 5, 8, 9, 12, 13, 15]
    value = numpy_helper.to_array(weight).copy()
    value[:, dead] *= 1e-3
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    first = next(t for t in model.graph.initializer if t.name == "first.weight")
    value = numpy_helper.to_array(first).copy()
    value[dead] *= 1e-1
    first.CopyFrom(numpy_helper.from_array(value, first.name))
    options = PruneOptions(
        importance=importance,
        layers={"/first/Conv": 0.5},
        exclude=("/stem/*",),
        compensation="none",
        round_to=1,
    )
    done = prune(model, feeds, options)
    assert done.layers == {"/first/Conv": (16, 8)}
    assert done.output_error < 0.02


def test_batch_norms_scales_rank_channels_where_they_are_kept(networks, feeds):
    class Normed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = torch.nn.Conv2d(3, 8, 1), torch.nn.BatchNorm2d(8)
            self.last = torch.nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(self.stem(x)).relu())

    import io
    import warnings

    network = Normed().train()
    network.norm.weight.data = torch.tensor([1, 0.1, 1, 0.1, 1, 0.1, 1, 0.1])
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mode = torch.onnx.TrainingMode.PRESERVE
        network.norm.eval()
        torch.onnx.export(
            network, (torch.rand(1, 3, 16, 16),), stream, dynamo=False, training=mode,
            do_constant_folding=False, input_names=["input"],
        )  # fmt: skip
    model = onnx.load_from_string(stream.getvalue())
    assert any(node.op_type == "BatchNormalization" for node in model.graph.node)
    options = PruneOptions(0.5, "channels", "uniform", "bn-scale", round_to=1, compensation="none")
    done = prune(model, feeds, options)
    norm = next(node for node in done.model.graph.node if node.op_type == "BatchNormalization")
    scale = next(t for t in done.model.graph.initializer if t.name == norm.input[1])
    np.testing.assert_array_equal(numpy_helper.to_array(scale), 1)


def test_in_rounds_the_same_amount_goes_and_widths_stay_multiples(digits):
    done = prune(digits.model, digits.learnt[:32], PruneOptions(0.5, rounds=3, round_to=4))
    assert 0.48 < done.describe()["removed"]["macs"] < 0.62
    assert all(after % 4 == 0 for _, after in done.layers.values())


def test_the_same_samples_and_seed_give_the_same_bytes(digits):
    first, second = (
        prune(digits.model, digits.learnt[:16], PruneOptions(0.3, importance=kind)).model.SerializeToString(
            deterministic=True
        )
        for kind in ("random", "random")
    )
    assert first == second


def test_a_pruned_graph_trains_on_and_is_imported_again(digits, tmp_path):
    from boardwright.compiler.engine.training.network import to_onnx, to_torch

    done = prune(digits.model, digits.learnt, PruneOptions(0.6))
    network, teacher = to_torch(done.model), to_torch(digits.model)
    inputs = torch.cat(
        [torch.from_numpy(sample.image[None, None] / 255.0).float() for sample in digits.samples]
    )
    with torch.no_grad():
        wanted = teacher(inputs)[0].softmax(1)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(4):
        for chosen in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[chosen])[0], wanted[chosen]).backward()
            optimizer.step()
    trained = to_onnx(network.eval())
    assert digits.top1(trained) >= digits.top1(digits.model) - 0.04
    path = tmp_path / "pruned.onnx"
    onnx.save(trained, path)
    again = import_checkpoint(path, Declared(input_spec=digits.input_spec, output_spec=digits.output_spec))
    assert digits.top1(again.model) == digits.top1(trained)
    macs = done.describe()["removed"]["macs"]
    assert 0.59 < macs < 0.75


def test_heads_stay_when_the_recipe_says_so(graph, feeds):
    options = PruneOptions(0.5, "channels", "uniform", round_to=1)
    with_heads = prune(graph("Attention"), feeds, options)
    assert list(with_heads.heads.values()) == [(4, 2)]
    without = prune(
        graph("Attention"), feeds, PruneOptions(0.5, "channels", "uniform", round_to=1, heads=False)
    )
    assert without.heads == {}
    assert without.layers
    assert any("LayerNormalization" in note for note in with_heads.notes)


@pytest.mark.parametrize(
    ("changes", "reason", "told"),
    [
        ({"importance": "bn-scale"}, "BN_SCALES_FOLDED", "Use importance l2"),
        ({"amount": 0.95}, "PRUNING_UNREACHABLE", "at most"),
        ({"exclude": ("/stem/Convv",)}, "LAYER_UNKNOWN", "Did you mean '/stem/Conv'"),
        ({"layers": {"/last/Gemm": 0.5}}, "LAYER_UNKNOWN", "No layer whose channels can be pruned"),
    ],
)
def test_what_cannot_be_done_is_told(graph, feeds, changes, reason, told):
    with pytest.raises(EngineError, match=told) as caught:
        prune(graph("Residual"), feeds, PruneOptions(**{"round_to": 1, **changes}))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 0.0}, {"amount": 1.0}, {"amount": float("nan")}, {"max_ratio": 1.5},
        {"max_ratio": float("nan")}, {"layers": {"*": 1.5}}, {"layers": {"*": float("nan")}},
        {"layers": {"*": -0.1}}, {"scope": "local"}, {"importance": "l3"}, {"rounds": 0},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(changes):
    with pytest.raises(EngineError) as caught:
        PruneOptions(**changes)
    assert caught.value.reason == "PRUNING_OPTIONS_UNFIT"


def test_without_samples_only_weights_rank(graph):
    with pytest.raises(EngineError) as caught:
        prune(graph("Residual"), [])
    assert caught.value.reason == "SAMPLES_NEEDED"
    done = prune(graph("Residual"), [], PruneOptions(importance="l2", compensation="none", round_to=1))
    assert done.output_error is None
    assert any("train the result" in note for note in done.notes)


def test_a_graph_without_channels_to_prune_and_a_quantized_one_are_refused(feeds):
    from onnx import TensorProto, helper

    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    ends = ("input", TensorProto.FLOAT, [1, 3, 16, 16]), ("output", TensorProto.FLOAT, [1, 2, 16, 16])
    given, made = (helper.make_tensor_value_info(*end) for end in ends)
    nodes = [helper.make_node("Conv", ["input", "w"], ["output"])]
    model = helper.make_model(
        helper.make_graph(nodes, "net", [given], [made], [weight]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    with pytest.raises(EngineError) as caught:
        prune(model, feeds)
    assert caught.value.reason == "NOTHING_TO_PRUNE"
    model.graph.node.append(helper.make_node("QuantizeLinear", ["output", "s", "z"], ["q"]))
    with pytest.raises(EngineError) as caught:
        prune(model, feeds)
    assert caught.value.reason == "ALREADY_QUANTIZED"


def test_weights_that_two_layers_share_are_repaired_by_nobody_but_still_right(graph, feeds):
    done = prune(graph("SharedHead"), feeds, PruneOptions(0.4, "channels", "uniform", round_to=1))
    answers = open_session(done.model).run(None, feeds[0])
    assert [answer.shape for answer in answers] == [(1, 4, 80), (1, 7)]


def test_a_graph_that_cannot_be_differentiated_is_ranked_by_what_can_be_measured(graph, feeds, monkeypatch):
    from boardwright.compiler.engine.training import network

    def refuse(*_: object, **__: object) -> None:
        raise EngineError("TRAINING_OPERATOR_UNSUPPORTED", "Einsum cannot be trained.")

    monkeypatch.setattr(network, "GraphNetwork", refuse)
    done = prune(graph("Residual"), feeds, PruneOptions(0.3, round_to=1))
    assert any("no gradients. Einsum cannot be trained" in note for note in done.notes)
    by_hand = prune(graph("Residual"), feeds, PruneOptions(0.3, importance="reconstruction", round_to=1))
    assert done.layers == by_hand.layers


def test_weights_that_are_not_finite_are_told(graph, feeds):
    model = graph("Residual")
    weight = next(t for t in model.graph.initializer if t.name == "first.weight")
    value = numpy_helper.to_array(weight).copy()
    value[0, 0, 0, 0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    with pytest.raises(EngineError) as caught:
        prune(model, feeds, PruneOptions(0.3, importance="reconstruction", round_to=1))
    assert caught.value.reason == "CALIBRATION_NOT_FINITE"


def test_constants_that_exporters_share_are_cut_apart_round_by_round():
    rng = np.random.default_rng(0)
    value = onnx.helper.make_tensor_value_info
    stored = {"bias": np.zeros(16, np.float32)}  # one zero bias for all, as exporters store equal constants
    nodes, read = [], "x"
    for number in range(4):
        stored[f"w{number}"] = rng.normal(0, 0.3, (16, 16, 3, 3)).astype(np.float32)
        made = f"t{number}"
        nodes += [
            onnx.helper.make_node("Conv", [read, f"w{number}", "bias"], [f"c{number}"], pads=[1] * 4),
            onnx.helper.make_node("Relu", [f"c{number}"], [made]),
        ]
        read = made
    nodes.append(onnx.helper.make_node("GlobalAveragePool", [read], ["y"]))
    graph = onnx.helper.make_graph(
        nodes,
        "shared",
        [value("x", onnx.TensorProto.FLOAT, [1, 16, 8, 8])],
        [value("y", onnx.TensorProto.FLOAT, [1, 16, 1, 1])],
        [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    images = [{"x": rng.normal(size=(1, 16, 8, 8)).astype(np.float32)} for _ in range(8)]
    options = PruneOptions(0.5, importance="l2", round_to=1, rounds=4)
    done = prune(model, images, options)
    names = [tensor.name for tensor in done.model.graph.initializer]
    assert len(names) == len(set(names))
    assert open_session(done.model).run(None, images[0])[0].shape == (1, 16, 1, 1)


def test_gradients_rank_attention_heads_too(graph, feeds):
    """Fusions rename what a MatMul and its bias make: heads that no gradient reached all looked worthless."""
    model = graph("Attention")
    head = slice(16, 24)  # the third of four, which nobody listens to
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    name = next(
        node.input[1] for node in model.graph.node if node.op_type == "MatMul" and "project" in node.name
    )
    value = numpy_helper.to_array(stored[name]).copy()
    value[head] *= 1e-3
    stored[name].CopyFrom(numpy_helper.from_array(value, name))
    found = find_dependencies(prepare_for_pruning(model))
    cells = find_cells(found)
    scores = taylor(found, cells, feeds)
    place = next(number for number, cell in enumerate(cells) if is_heads(found, cell))
    assert cells[place].units.size == 4
    assert scores[place].argmin() == 2
    assert (scores[place][[0, 1, 3]] > 1e3 * scores[place][2]).all()
    assert all((score > 0).any() for score in scores)


def test_outputs_without_a_batch_and_of_any_number_of_rows_have_an_error():
    scalars = [[np.float32(value)] for value in (1, 2, 3)]
    assert output_error(scalars, [[value + np.float32(1)] for (value,) in scalars]) == pytest.approx(1.5**0.5)
    selected = [[np.full((1, rows, 4), rows, np.float32)] for rows in (2, 3)]
    assert output_error(selected, selected) == 0
    assert output_error(selected, selected[::-1]) == 1000, "as many rows in all are not the same rows"
    assert output_error([[*scalars[0], *selected[0]]], [[*scalars[0], *selected[1]]]) == 500
