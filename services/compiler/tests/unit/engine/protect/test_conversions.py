"""What runs in floating point because that costs no conversion."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.protect import Exclusion, protect
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES

_WIDTH, _BLOCKS = 16, 8


def blocks(norm: str) -> onnx.ModelProto:
    """Layers that read a norm of what all before them have added up, as transformers are built."""
    rng = np.random.default_rng(0)
    stored = {"one": np.ones(_WIDTH, np.float32), "none": np.zeros(_WIDTH, np.float32)}
    stored["start"] = np.eye(_WIDTH, dtype=np.float32)
    nodes, stream = [helper.make_node("MatMul", ["x", "start"], ["s"], name="start")], "s"
    for number in range(_BLOCKS):
        stored[f"w{number}"] = rng.normal(0, _WIDTH**-0.5, (_WIDTH, _WIDTH)).astype(np.float32)
        given = [stream, "one", "none"] if norm == "LayerNormalization" else [stream]
        nodes += [
            helper.make_node(norm, given, [f"n{number}"], name=f"norm{number}"),
            helper.make_node("MatMul", [f"n{number}", f"w{number}"], [f"m{number}"], name=f"matmul{number}"),
            helper.make_node("Add", [stream, f"m{number}"], [f"s{number}"], name=f"sum{number}"),
        ]
        stream = f"s{number}"
    nodes.append(helper.make_node("LayerNormalization", [stream, "one", "none"], ["y"], name="norm"))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, [1, 4, _WIDTH])],
        [value("y", TensorProto.FLOAT, [1, 4, _WIDTH])],
        [numpy_helper.from_array(values, name) for name, values in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rows(seed: int) -> dict[str, np.ndarray]:
    """Four positions, one of them larger than the others."""
    values = np.random.default_rng(seed).normal(size=(1, 4, _WIDTH)) * np.array([1, 1, 1, 8])[:, None]
    return {"x": values.astype(np.float32)}


def test_what_blocks_add_up_is_not_rounded_for_norms_in_floating_point():
    model, feeds = blocks("LayerNormalization"), [rows(seed) for seed in range(8)]
    prepared = prepare_graph(model)
    tail, found = protect(prepared, observe(prepared, iter(feeds)).ranges, PROFILES["x86-vnni"])
    assert tail.nodes == (f"sum{_BLOCKS - 1}", "norm")
    sums = tuple(f"sum{number}" for number in range(_BLOCKS - 1))
    assert (found.rule, found.nodes, found.conversions) == ("pocket", sums, 0)
    exact = open_session(model).run(None, feeds[0])[0]

    def error(*kept: Exclusion) -> float:
        done = quantize(model, iter(feeds), PROFILES["x86-vnni"], exclusions=kept)
        assert done.kernels["integer_layers"] == _BLOCKS + 1
        return float(np.abs(open_session(done.model).run(None, feeds[0])[0] - exact).mean())

    assert error(tail, found) < 0.85 * error(tail)


def test_sums_between_integer_layers_stay_integers():
    model, feeds = blocks("Relu"), [rows(seed) for seed in range(8)]
    prepared = prepare_graph(model)
    found = protect(prepared, observe(prepared, iter(feeds)).ranges, PROFILES["x86-vnni"])
    assert not {name for entry in found for name in entry.nodes} & {"sum0", "sum1"}
