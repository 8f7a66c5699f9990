"""What depends on what: pruning any of these networks computes what zeroing the same channels does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.pruning.channels import is_heads
from boardwright.compiler.engine.pruning.dependencies import find_dependencies
from boardwright.compiler.engine.pruning.graph import prepare_for_pruning, shapes_of
from boardwright.compiler.engine.pruning.movement import matching_runs
from boardwright.compiler.engine.pruning.surgery import check_equal, mask_units, remove_units
from boardwright.compiler.engine.pruning.units import CostModel, find_cells

NAMES = ("Residual", "Squeezing", "ChunkedStages", "Shuffling", "Attention", "SharedHead")


def found_in(model):
    return find_dependencies(prepare_for_pruning(model))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ratio", [0.25, 0.6])
def test_removing_is_the_same_as_zeroing_and_makes_the_graph_smaller(graph, feeds, name, ratio):
    found = found_in(graph(name))
    rng = np.random.default_rng(2)
    cells = find_cells(found)
    units = [
        int(unit) for cell in cells for unit in rng.permutation(cell.units)[: int(cell.units.size * ratio)]
    ]
    pruned = remove_units(found, units)
    baseline, zeroed, smaller = map(open_session, (found.model, mask_units(found, units), pruned))
    for feed in feeds[:3]:
        before, wanted, got = (session.run(None, feed) for session in (baseline, zeroed, smaller))
        for ours, theirs, old in zip(got, wanted, before, strict=True):
            assert ours.shape == old.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1, np.abs(old).max()))
        assert max(np.abs(new - old).max() for new, old in zip(got, before, strict=True)) > 1e-4
    costs = CostModel(found)
    assert costs.cost(units).parameters < (1 - 0.5 * ratio) * costs.cost(()).parameters
    stored = sum(np.prod(t.dims) for t in pruned.graph.initializer if t.data_type == TensorProto.FLOAT)
    assert stored == costs.cost(units).parameters


def widths(model: onnx.ModelProto) -> dict[str, int]:
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return {
        node.name.strip("/").split("/")[0]: shapes[node.input[1]][0]
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def test_the_halves_of_a_chunked_convolution_are_pruned_apart_and_the_split_follows(graph):
    found = found_in(graph("ChunkedStages"))
    halves = [cell for cell in find_cells(found) if cell.name.startswith("/split")]
    assert sorted(cell.units.size for cell in halves) == [8, 8]
    alone = next(cell for cell in halves if len(cell.layers) == 1)
    pruned = remove_units(found, [int(unit) for unit in alone.units[:5]])
    shapes = shapes_of(pruned)
    parts = [
        output for node in pruned.graph.node if node.op_type in ("Split", "Slice") for output in node.output
    ]
    assert sorted(shapes[part][1] for part in parts) == [3, 8]
    assert widths(pruned)["split"] == 11


def test_a_split_keeps_its_parts_and_a_gather_its_order():
    apart = helper.make_node("Split", ["b", "sizes"], ["p", "q"], axis=1)
    turned = helper.make_node("Gather", ["q", "order"], ["r"], axis=1)
    model = chain(apart, turned, helper.make_node("Concat", ["r", "p"], ["c"], axis=1), made=[1, 6, 4, 4])
    for name, value in (("sizes", [2, 4]), ("order", [3, 1, -2, 0])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    found = found_in(model)
    units = [int(unit) for cell in find_cells(found) for unit in cell.units]
    for gone in ([units[0]], units[2:5], [units[1], units[5]]):
        assert check_equal(found, gone, remove_units(found, gone)) < 1e-5


def test_layers_that_write_into_one_stream_lose_the_same_channels(graph):
    found = found_in(graph("Residual"))
    stream = next(cell for cell in find_cells(found) if len(cell.layers) == 2)
    assert [name.strip("/").split("/")[0] for name in stream.layers] == ["stem", "second"]


def test_whole_heads_go_with_their_rows_and_the_reshapes_follow(graph, feeds):
    found = found_in(graph("Attention"))
    (heads,) = [cell for cell in find_cells(found) if is_heads(found, cell)]
    assert (heads.units.size, heads.width) == (4, 24)
    pruned = remove_units(found, [int(heads.units[1])])
    shapes = {tensor.name: list(tensor.dims) for tensor in pruned.graph.initializer}
    assert [32, 72] in shapes.values()  # queries, keys and values of three heads of 8
    assert [24, 32] in shapes.values()  # the projection reads three heads
    assert open_session(pruned).run(None, feeds[0])[0].shape == (1, 5)


def test_a_shared_head_stays_shared(graph):
    found = found_in(graph("SharedHead"))
    tower = next(cell for cell in find_cells(found) if "tower" in cell.name)
    pruned = remove_units(found, [int(unit) for unit in tower.units[:4]])
    towers = [node for node in pruned.graph.node if node.op_type == "Conv" and "tower" in node.name]
    assert len(towers) == 2
    assert towers[0].input[1] == towers[1].input[1]


def test_outputs_and_what_feeds_them_are_left_alone(graph):
    found = found_in(graph("ChunkedStages"))
    named = {name.strip("/").split("/")[0] for cell in find_cells(found) for name in cell.layers}
    assert named == {"stem", "split", "first", "second", "join"}


def chain(*middle: onnx.NodeProto, made: list[int]) -> onnx.ModelProto:
    """Conv a, some nodes from b to c, Conv: 3 channels in, 6 in between."""
    rng = np.random.default_rng(0)
    width = made[1]
    constants = {"k": rng.normal(size=(6, 3, 1, 1)), "k2": rng.normal(size=(2, width, 1, 1))}
    body = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "k"], ["b"], name="first"),
            *middle,
            helper.make_node("Conv", ["c", "k2"], ["output"], name="second"),
        ],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2, *made[2:]])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("node", "made"),
    [
        (helper.make_node("Softmax", ["b"], ["c"], axis=1), [1, 6, 4, 4]),
        (helper.make_node("LRN", ["b"], ["c"], size=3), [1, 6, 4, 4]),
        (helper.make_node("CumSum", ["b", "axis"], ["c"]), [1, 6, 4, 4]),
    ],
)
def test_what_mixes_channels_or_is_unknown_keeps_them_and_is_named(node, made):
    model = chain(node, made=made)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "axis"))
    found = found_in(model)
    assert find_cells(found) == ()
    assert node.op_type in found.frozen_by


def test_channels_that_a_subgraph_reads_are_kept():
    def branch(name: str, operator: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 6, 4, 4])
        return helper.make_graph([helper.make_node(operator, ["b"], [name])], name, [], [made])

    chosen = helper.make_node(
        "If", ["which"], ["c"], then_branch=branch("t", "Relu"), else_branch=branch("e", "Abs")
    )
    model = chain(
        helper.make_node("ReduceMax", ["input"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["which"]),
        chosen,
        made=[1, 6, 4, 4],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    assert find_cells(found_in(model)) == ()


def test_space_to_depth_and_back_follow_their_blocks():
    back = helper.make_node("DepthToSpace", ["d"], ["c"], blocksize=2, mode="DCR")
    there = helper.make_node("SpaceToDepth", ["b"], ["d"], blocksize=2)
    found = found_in(chain(there, back, made=[1, 6, 4, 4]))
    (cell,) = find_cells(found)
    pruned = remove_units(found, [int(cell.units[0])])
    assert check_equal(found, [int(cell.units[0])], pruned) < 1e-5


def test_a_difference_between_removing_and_zeroing_is_refused(graph):
    found = found_in(graph("Residual"))
    cell = find_cells(found)[0]
    pruned = remove_units(found, [int(cell.units[0])])
    with pytest.raises(EngineError) as caught:
        check_equal(found, [int(cell.units[1]), int(cell.units[2])], pruned)
    assert caught.value.reason == "PRUNING_DIFFERS"


def test_reshapes_are_read_as_runs_of_axes():
    assert matching_runs((1, 6, 4, 4), (1, 2, 3, 16)) == [((1,), (1, 2)), ((2, 3), (3,))]
    assert matching_runs((2, 3), (3, 2)) == [((0, 1), (0, 1))]
    assert matching_runs((2, 3), (2, 4)) is None
