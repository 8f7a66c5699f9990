"""Who feeds whom in a graph."""

from __future__ import annotations

from onnx import TensorProto, helper

from boardwright.compiler.engine.graph.topology import Topology


def test_inputs_and_outputs_that_are_left_out_connect_nothing():
    """Of the LSTM only the last state is read; that of the Clip beside it has no lower bound."""
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "", "", "h"], ["", "last"], hidden_size=2),
        helper.make_node("Clip", ["x", "", "most"], ["clipped"]),
    ]
    stored = [helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]) for name in ("w", "r", "most")]
    topology = Topology(helper.make_graph(nodes, "net", [], [], stored))

    assert topology.producers(1) == []
    assert topology.consumers(0) == []
    assert topology.last_layers == (0,)
