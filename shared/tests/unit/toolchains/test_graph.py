"""What is read from a graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from boardwright.testing import sample_graphs
from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.graph import MAX_GRAPH_BYTES, read_graph
from boardwright.toolchains.precision import pairs_overflow


def test_operators_are_counted_and_named(tmp_path: Path) -> None:
    facts = read_graph(sample_graphs.write_classifier(tmp_path / "g.onnx"))
    uses = {use.operator: (use.count, use.version, use.nodes) for use in facts.operators}
    assert uses["Conv"] == (2, 19, ("conv0", "conv1"))
    assert (facts.inputs, facts.outputs) == (("image",), ("logits",))
    assert facts.precision.short == "FP32"
    assert facts.parameters == 3 * 8 * 9 + 8 + 8 * 16 * 9 + 16 + 16 * 10 + 10


@pytest.mark.parametrize("activation", ["uint8", "int8"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_precision_is_read(tmp_path: Path, activation: str, symmetric: bool, per_channel: bool) -> None:
    graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx", activation, per_channel, symmetric)
    precision = read_graph(graph).precision
    assert precision.activation_types == (activation,)
    assert precision.weight_types == ("int8",)
    assert precision.asymmetric_activations is not symmetric
    assert precision.per_channel is per_channel
    assert not precision.asymmetric_weights and precision.wide_weights
    assert (precision.quantized, precision.compute) == (3, 3)
    assert precision.short == ("U8S8" if activation == "uint8" else "S8S8")


def test_scales_that_are_powers_of_two_are_told_from_others(tmp_path: Path) -> None:
    path = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx", "int8", True, True)
    assert read_graph(path).precision.other_scales
    model = onnx.load(path)
    scales = {node.input[1] for node in model.graph.node if node.op_type.endswith("izeLinear")}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            exponents = np.ceil(np.log2(numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(np.exp2(exponents).astype(np.float32), tensor.name))
    onnx.save(model, path)
    assert not read_graph(path).precision.other_scales


def test_half_precision_is_told(tmp_path: Path) -> None:
    path = sample_graphs.write_classifier(tmp_path / "g.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(model.SerializeToString())
    assert read_graph(path).precision.short == "FP16"


def test_a_file_beyond_onnx_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_GRAPH_BYTES + 1)  # sparse: no disk is used
    with pytest.raises(ToolchainError) as caught:
        read_graph(path)
    assert caught.value.reason == "GRAPH_TOO_LARGE"


@pytest.mark.parametrize(("operator", "channels", "groups", "overflow"), [
    ("Conv", 8, 8, False), ("QLinearConv", 8, 8, False), ("ConvInteger", 8, 8, True), ("Conv", 16, 8, True),
    ("Conv", 8, 1, True),
])  # fmt: skip
def test_depthwise_weights_pair_only_where_they_are_multiplied_as_matrices(
    operator: str, channels: int, groups: int, overflow: bool
) -> None:
    node = onnx.helper.make_node(operator, ["x", "w"], ["y"], group=groups)
    assert pairs_overflow(node, np.full((channels, 1, 3, 3), 127, np.int16)) is overflow
